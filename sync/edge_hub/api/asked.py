"""What a request asks, read within limits: its body, its parameters."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from edge_hub.api.replies import too_large
from edge_models.errors import RejectedError
from edge_sync.rows import LANES

MAX_JSON_BYTES = 512 * 1024

M = TypeVar("M", bound=BaseModel)


async def body(request: Request, kind: type[M], limit_bytes: int = MAX_JSON_BYTES) -> M:
    """The JSON body as a `kind`. Raises `RejectedError` naming the field, or 413 beyond the limit."""
    check_length(request, limit_bytes)
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > limit_bytes:
            raise too_large(limit_bytes)
    try:
        return kind.model_validate_json(bytes(data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RejectedError(f"{where or 'body'}: {first['msg']}") from None


def check_length(request: Request, limit_bytes: int) -> None:
    """Refuse a body that says itself that it is too large, before any of it is read."""
    said = request.headers.get("content-length", "0")
    if said.isdigit() and int(said) > limit_bytes:
        raise too_large(limit_bytes)


def known_parameters(request: Request, *names: str) -> dict[str, str]:
    """The query's parameters. Raises `RejectedError` for one that means nothing here."""
    given = dict(request.query_params)
    for name in given:
        if name not in names:
            raise RejectedError(f"no parameter is named {name!r} here: there are {', '.join(names)}")
    return given


def number(text: str, what: str, low: int, high: int) -> int:
    """A whole number of a path or query. Raises `RejectedError`."""
    if not (text.isascii() and text.isdigit() and len(text) < 19 and low <= int(text) <= high):
        raise RejectedError(f"{what} {text[:40]!r}: wanted a whole number from {low} to {high}")
    return int(text)


def record_key(text: str) -> tuple[str, str, int]:
    """Epoch, lane and seq of a record's id. Raises `RejectedError`."""
    parts = text.split(":")
    if len(parts) != 3 or parts[1] not in LANES:
        raise RejectedError(f"record {text[:80]!r}: an id is EPOCH:LANE:SEQ, with lane {', '.join(LANES)}")
    return parts[0], parts[1], number(parts[2], "seq", 1, 2**53)
