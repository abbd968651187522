"""What the API answers, also when something is wrong: one table from error class to status."""

import json
import logging

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge_hub.database.store import TakenError, UnknownError
from edge_models.errors import ConfigError, KitError, RejectedError, RetryableError

log = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[KitError], int], ...] = (
    (UnknownError, 404),
    (TakenError, 409),
    (RejectedError, 400),
    (ConfigError, 400),
    (RetryableError, 503),
)


def reply(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    try:
        text = orjson.dumps(value)
    except TypeError:  # a site may have reported an integer of more than 64 bits
        text = json.dumps(value).encode()
    return Response(text, status, headers, media_type="application/json")


async def kit_error(_request: Request, error: Exception) -> Response:
    """A refusal of ours."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    headers = {"Retry-After": f"{error.retry_after_s:.0f}"} if isinstance(error, RetryableError) else None
    return reply({"error": str(error)}, status, headers)


async def http_error(_request: Request, error: Exception) -> Response:
    """A refusal of the framework, as for a path that does not exist, or of `too_large`."""
    if not isinstance(error, HTTPException):
        return await defect(_request, error)
    return reply({"error": error.detail}, error.status_code, dict(error.headers or {}))


async def database_error(request: Request, error: Exception) -> Response:
    """The database can't do it now, as on a full disk."""
    log.error("database_failed", exc_info=error, extra={"path": request.url.path})
    return reply({"error": "the hub's database cannot do this now; its log says why"}, 503, {"Retry-After": "5"})


async def defect(request: Request, error: Exception) -> Response:
    """A mistake of this program: logged, and not shown."""
    log.error("request_failed", exc_info=error, extra={"path": request.url.path})
    return reply({"error": "the hub failed at this; its log says why"}, 500)


def too_large(limit_bytes: int) -> HTTPException:
    """What to raise for a body beyond its limit."""
    return HTTPException(413, f"the body is over {limit_bytes} bytes")
