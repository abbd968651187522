"""HTTP/1.1 requests out of bytes, with a bound on everything: no socket, no clock."""

from dataclasses import dataclass, field

import httptools
import orjson

MAX_HEAD_BYTES = 16 * 1024
"""Request line and headers together."""

_REASONS = {
    202: "Accepted",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. Names of headers are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """What came is no request that can be served; nothing after it can be read either."""

    status: int
    error: str


def response(status: int, body: dict[str, object], keep_alive: bool, **headers: str) -> bytes:
    """The bytes of a JSON answer."""
    content = orjson.dumps(body)
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        "content-type: application/json",
        f"content-length: {len(content)}",
        f"connection: {'keep-alive' if keep_alive else 'close'}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + content


@dataclass(slots=True)
class _Message:
    target: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    head_bytes: int = 0


class _RefuseError(Exception):
    """Leaves the parser's callbacks with a verdict."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.error)
        self.refused = refused


class RequestReader:
    """Reads the requests of one connection."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._message = _Message()
        self._whole: list[Request | Refused] = []
        self._unparsed_bytes = 0
        self.expects_continue = False
        """Whether the sender waits for `CONTINUE` before it sends the body."""

    def feed(self, data: bytes) -> list[Request | Refused]:
        """The requests that `data` completes; feed nothing more after a `Refused`."""
        self._whole = []
        # The parser itself keeps a header that never ends; so what it was given in vain is bounded here.
        self._unparsed_bytes += len(data)
        try:
            if self._unparsed_bytes > self._max_body_bytes + 2 * MAX_HEAD_BYTES + len(data):
                raise _RefuseError(Refused(413, "request too large"))
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._whole.append(Refused(400, "no upgrade to another protocol here"))
        except httptools.HttpParserError as error:
            cause = error.__context__
            verdict = cause.refused if isinstance(cause, _RefuseError) else Refused(400, f"no HTTP request: {error}")
            self._whole.append(verdict)
        except _RefuseError as error:
            self._whole.append(error.refused)
        return self._whole

    # What httptools calls, by these names:

    def on_message_begin(self) -> None:
        self._message = _Message()

    def on_url(self, url: bytes) -> None:
        self._message.target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._message.headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        self._count_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        headers = self._message.headers
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length[:20]) > self._max_body_bytes:
            raise self._too_large()
        self.expects_continue = headers.get("expect", "").lower() == "100-continue"

    def on_body(self, body: bytes) -> None:
        self.expects_continue = False
        self._message.body += body
        if len(self._message.body) > self._max_body_bytes:
            raise self._too_large()

    def on_message_complete(self) -> None:
        message = self._message
        self._whole.append(
            Request(
                self._parser.get_method().decode("latin-1"),
                message.target.decode("latin-1"),
                message.headers,
                bytes(message.body),
                self._parser.should_keep_alive(),
            )
        )
        self._message = _Message()
        self._unparsed_bytes = 0
        self.expects_continue = False

    def _count_head(self, size_bytes: int) -> None:
        self._message.head_bytes += size_bytes
        if self._message.head_bytes > MAX_HEAD_BYTES:
            raise _RefuseError(Refused(431, f"request line and headers: the most is {MAX_HEAD_BYTES} bytes"))

    def _too_large(self) -> _RefuseError:
        return _RefuseError(Refused(413, f"the largest body is {self._max_body_bytes} bytes"))
