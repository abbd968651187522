"""One HTTP/1.1 connection: parsed by httptools, bounded on every side, answered by a handler.

There is no proxy in front of a site's API, so the bounds are here (`Limits` says what each is for). A handler that is
quick runs at once, on the event loop: a task or a thread for each request would take longer than a small model does.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast
from urllib.parse import unquote

import httptools

from edge_agent.api.deadline import Deadline
from edge_agent.api.limits import Limits
from edge_agent.api.messages import Handler, Head, Refusal, Reply, Slow

log = logging.getLogger(__name__)

_LINGER_S = 1.0
"""Between the last answer and the end of a connection whose client may still send: closing at once may destroy it."""


@dataclass(slots=True)
class Shared:
    """What the connections of one server have in common."""

    route: Callable[[Head], Handler]
    """Finds the handler when the header fields are whole. Raises `Refusal`."""
    executor: Executor
    limits: Limits
    open: set["Connection"] = field(default_factory=set)
    held_bytes: int = 0
    """Of all bodies under way."""


@dataclass(slots=True)
class _Request:
    """A request as far as it has come."""

    with_body: bool = True
    """Whether the answer has one: not to HEAD."""
    keep_alive: bool = False
    handler: Handler | None = None
    refusal: Refusal | None = None
    parts: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    held_bytes: int = 0


class Connection(asyncio.Protocol):
    """Serves requests one after the other, in the order they came."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._limits = shared.limits
        self._loop = asyncio.get_running_loop()
        self._deadline = Deadline(self._loop)
        self._stalled = Deadline(self._loop)
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[_Request] = deque()
        self._serving: _Request | None = None
        self._coming: _Request | None = None
        self._messages = 0
        self._message_bytes = 0
        self._in_headers = True
        self._due_s: float | None = None
        """How long the coming request has for its next step, where that changed with what is being parsed."""
        self._ending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or say 503 and end it."""
        self._transport = cast(asyncio.Transport, transport)
        most = self._limits.connections
        self._shared.open.add(self)
        if sum(not connection._ending for connection in self._shared.open) > most:
            self._fail(503, f"more than {most} connections: try again")
        else:
            self._deadline.set(self._limits.header_timeout_s, self._late)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        """Let go of everything; an answer still being made has nowhere to go."""
        self._ending = True
        self._deadline.close()
        self._stalled.close()
        self._shared.open.discard(self)
        for request in (self._coming, *self._waiting):
            self._release(request)
        self._coming = None
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        """Parse what came, then serve the requests that are whole."""
        if self._ending:
            return
        message = self._messages
        broken = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            broken = "only HTTP/1.1 is spoken here: send no Upgrade"
        except httptools.HttpParserError:
            broken = "this is not HTTP"
        # What came whole before it is answered first.
        self._serve()
        if broken:
            self._fail(400, broken)
        elif self._coming is not None:
            if self._due_s is not None:
                self._expect_within(self._due_s)
            if self._messages == message:
                self._bound(self._coming, len(data))

    def _bound(self, request: _Request, came_bytes: int) -> None:
        """Refuse a message that grows too large, whatever it grows by: the parser keeps what it is fed.

        The segment that a message begins in may hold others before it and is not counted: the bound holds to within
        one read of the socket.
        """
        self._message_bytes += came_bytes
        if self._in_headers and self._message_bytes > self._limits.http_header_bytes:
            self._fail(431, f"the header fields are larger than {self._limits.http_header_bytes} bytes")
        elif self._message_bytes > self._limits.drain_bytes:
            self._give_up(request, request.refusal or too_large(self._limits))

    def pause_writing(self) -> None:
        """The client does not take what was sent: it gets a moment."""
        self._stalled.set(self._limits.stalled_timeout_s, self._transport.abort)

    def resume_writing(self) -> None:
        """It took it."""
        self._stalled.clear()

    def finish(self) -> None:
        """Answer the request that is being served, then end."""
        if self._serving is None:
            self._transport.close()
        self._ending = True

    def abort(self) -> None:
        """End now."""
        self._transport.abort()

    # What httptools calls. An exception here would look like a client's mistake.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._coming = _Request()
        self._url = b""
        self._fields: dict[bytes, bytes] = {}
        self._messages += 1
        self._message_bytes = 0
        self._in_headers = True
        self._due_s = self._limits.header_timeout_s

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field; what comes after the body is nobody's."""
        if self._in_headers:
            self._fields[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The header fields are whole: the request is refused here, or its body is waited for."""
        self._in_headers = False
        self._due_s = self._limits.body_timeout_s
        request = self._coming = self._coming or _Request()
        method = self._parser.get_method().decode("latin-1")
        request.with_body = method != "HEAD"
        request.keep_alive = self._parser.get_http_version() == "1.1" and self._parser.should_keep_alive()
        try:
            request.handler = self._shared.route(Head(method, _path(self._url), self._fields))
            if int(self._fields.get(b"content-length", b"0")) > self._limits.body_bytes:
                raise too_large(self._limits)
        except Refusal as refusal:
            request.refusal = refusal
        except httptools.HttpParserInvalidURLError:
            request.refusal = Refusal(400, "this is no path", close=True)
        except Exception:  # noqa: BLE001 - `_fault` logs it
            request.refusal = self._fault()
        if self._fields.get(b"expect", b"").lower() == b"100-continue":
            self._answer_expectation(request)

    def on_body(self, part: bytes) -> None:
        """A part of the body; what is refused is read and thrown away, so that its sender gets to read why."""
        request = self._coming
        if request is None:
            return
        request.size_bytes += len(part)
        if request.refusal is None and request.size_bytes > self._limits.body_bytes:
            request.refusal = too_large(self._limits)
        elif request.refusal is None and self._shared.held_bytes + len(part) > self._limits.held_bytes:
            later = ((b"retry-after", b"1"),)
            request.refusal = Refusal(503, "too many large requests at once: try again", fields=later, close=True)
        if request.refusal is None:
            self._shared.held_bytes += len(part)
            request.held_bytes += len(part)
            request.parts.append(part)
        else:
            self._release(request)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._coming is not None:
            self._waiting.append(self._coming)
            self._coming = None
            self._due_s = None
            if not self._ending:
                self._deadline.clear()

    # Serving.

    def _serve(self) -> None:
        """Answer what is whole, one after the other, until one takes long."""
        while self._waiting and self._serving is None and not self._ending:
            request = self._serving = self._waiting.popleft()
            result = self._handle(request)
            if isinstance(result, Slow):
                # Nothing more is read: what a client sends ahead stays in its own buffers.
                self._transport.pause_reading()
                work = self._loop.run_in_executor(self._shared.executor, result.work)
                work.add_done_callback(self._worked)
            else:
                self._reply(request, result)

    def _handle(self, request: _Request) -> Reply | Slow | Refusal:
        if request.refusal is not None or request.handler is None:
            return request.refusal or self._fault()
        parts = request.parts
        try:
            return request.handler(parts[0] if len(parts) == 1 else b"".join(parts))
        except Refusal as refusal:
            return refusal
        except Exception:  # noqa: BLE001 - `_fault` logs it
            return self._fault()

    def _worked(self, work: asyncio.Future[Reply]) -> None:
        """A slow answer is there."""
        request = self._serving
        if request is None or work.cancelled():
            return
        result: Reply | Refusal
        try:
            result = work.result()
        except Refusal as refusal:
            result = refusal
        except Exception:  # noqa: BLE001 - `_fault` logs it
            result = self._fault()
        self._reply(request, result)
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._serve()

    def _reply(self, request: _Request, result: Reply | Refusal) -> None:
        self._serving = None
        self._release(request)
        if self._transport.is_closing():
            return
        reply, close = (result.reply, result.close) if isinstance(result, Refusal) else (result, False)
        close = close or self._ending or not request.keep_alive
        self._transport.write(reply.encode(with_body=request.with_body, close=close))
        if close:
            self._linger()
        elif self._coming is None:
            # Line breaks between requests are no request: they do not move this.
            self._deadline.set(self._limits.idle_timeout_s, self._transport.close)

    def _answer_expectation(self, request: _Request) -> None:
        """The client asks before it sends its body: it is told to go on, or why not."""
        if request.refusal is not None:
            self._give_up(request, request.refusal)
        elif self._serving is None and not self._waiting:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # Ending.

    def _expect_within(self, delay_s: float) -> None:
        """The coming request has this long for its next step."""
        self._due_s = None
        if not self._ending:
            self._deadline.set(delay_s, self._late)

    def _late(self) -> None:
        """A deadline of a request passed. One that is refused already gets its own answer."""
        if self._serving is not None:
            # It was not read from while an earlier one is being served.
            self._expect_within(self._limits.body_timeout_s)
            return
        refusal = None if self._coming is None else self._coming.refusal
        if self._coming is not None and refusal is not None:
            self._give_up(self._coming, refusal)
        else:
            self._fail(408, "no whole request came in time")

    def _fail(self, status: int, message: str) -> None:
        """Refuse the connection itself."""
        self._give_up(self._coming or _Request(), Refusal(status, message))

    def _give_up(self, request: _Request, refusal: Refusal) -> None:
        """Answer a request that is not whole, and take nothing more."""
        self._release(request)
        self._coming = None
        if self._ending or self._transport.is_closing():
            return
        # An answer still being made to an earlier request is due first: out of order, it would be taken for this one.
        if self._serving is None and not self._waiting:
            self._transport.write(refusal.reply.encode(with_body=request.with_body, close=True))
        self._linger()

    def _linger(self) -> None:
        """Send nothing more, throw away what comes, and end when the client does, or soon."""
        self._ending = True
        if self._serving is None:
            self._transport.write_eof()
        self._deadline.set(_LINGER_S, self._transport.abort)

    def _release(self, request: _Request | None) -> None:
        """Let go of a body."""
        if request is not None:
            self._shared.held_bytes -= request.held_bytes
            request.held_bytes = 0
            request.parts.clear()

    def _fault(self) -> Refusal:
        """The answer to a fault of ours, which is logged here and told to nobody else."""
        log.exception("local API request failed")
        return Refusal(500, "this is a fault of the site's software; its log says more")


@lru_cache(maxsize=64)
def _path(url: bytes) -> str:
    """The path of a request's target. Raises `httptools.HttpParserInvalidURLError`."""
    return unquote((httptools.parse_url(url).path or b"").decode("latin-1"))


def too_large(limits: Limits) -> Refusal:
    """The refusal of a body that is too large."""
    return Refusal(413, f"the body is larger than {limits.body_bytes} bytes", close=True)
