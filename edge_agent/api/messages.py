"""What the API is asked and what it answers. Every refusal has OIP's form ``{"error": "…"}``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson

Fields = Mapping[bytes, bytes]
"""Header fields by name in lower case; of a field that came twice, the last."""

JSON_TYPE = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body."""

    method: str
    path: str
    fields: Fields


@dataclass(frozen=True, slots=True)
class Reply:
    """A response."""

    status: int
    body: bytes
    fields: tuple[tuple[bytes, bytes], ...] = ()

    def encode(self, *, with_body: bool, close: bool) -> bytes:
        """The response as it goes over the connection."""
        parts = [_STATUS_LINES[self.status], b"content-length: %d\r\n" % len(self.body)]
        parts += [b"%s: %s\r\n" % field for field in self.fields]
        parts.append(b"connection: close\r\n\r\n" if close else b"\r\n")
        if with_body:
            parts.append(self.body)
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Slow:
    """An answer that may take long: `work` is done when it is its turn."""

    work: Callable[[], Reply]


Handler = Callable[[bytes], Reply | Slow]
"""Answers one request, given its body."""


class Refusal(Exception):
    """A request that gets an error for an answer. `close` ends the connection after it."""

    def __init__(
        self, status: int, message: str, *, fields: tuple[tuple[bytes, bytes], ...] = (), close: bool = False
    ) -> None:
        super().__init__(message)
        self.reply = json_reply({"error": message}, status, fields)
        self.close = close


def json_reply(value: Any, status: int = 200, fields: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    """`value` as a JSON response."""
    return Reply(status, orjson.dumps(value), (JSON_TYPE, *fields))


_STATUS_LINES = {int(status): f"HTTP/1.1 {status} {status.phrase}\r\n".encode() for status in HTTPStatus}
