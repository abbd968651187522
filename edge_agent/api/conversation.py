"""One HTTP/1.1 conversation: bytes in, answers out. Parsed by httptools, bounded on every side. No I/O here.

There is no proxy in front of a site's API, so the bounds are here (`Limits` says what each is for).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote

import httptools

from edge_agent.api.limits import Limits
from edge_agent.api.messages import Handler, Head, Refusal, Reply, Slow

log = logging.getLogger(__name__)

_SLOW_AT_ONCE = 2
"""Slow answers made at once. More would take processor time from the agents without answering sooner."""


class Held:
    """The bytes of all bodies under way, in every conversation of a server."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Whether `count` more are held now: not where that would be too many."""
        with self._lock:
            fits = self._bytes + count <= self._most
            if fits:
                self._bytes += count
            return fits

    def give(self, count: int) -> None:
        """Let go of that many."""
        if count:
            with self._lock:
                self._bytes -= count


class Shared:
    """What the conversations of one server have in common. `route` finds a request's handler, or raises `Refusal`."""

    def __init__(self, route: Callable[[Head], Handler], limits: Limits) -> None:
        self.route = route
        self.limits = limits
        self.held = Held(limits.held_bytes)
        self.slow = threading.Semaphore(_SLOW_AT_ONCE)


@dataclass(slots=True)
class _Request:
    """A request as far as it has come."""

    with_body: bool = True
    """Whether the answer has one: not to HEAD."""
    takes_body: bool = True
    """Whether its own is kept: not of GET and HEAD, which anybody may send."""
    keep_alive: bool = False
    asks_first: bool = False
    """Whether its sender waits to be told that it may send the body."""
    handler: Handler | None = None
    refusal: Refusal | None = None
    body: bytearray = field(default_factory=bytearray)
    size_bytes: int = 0


class Conversation:
    """Serves the requests of one connection one after the other, in the order they came.

    `due` is the monotonic time, in seconds, by which more must come, else call `expire`; it is `silent` until a request
    has come whole, and once it is `over` nothing more is answered.
    """

    def __init__(self, shared: Shared, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared = shared
        self._limits = shared.limits
        self._clock = clock
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[_Request] = deque()
        self._coming: _Request | None = None
        self._messages = 0
        self._message_bytes = 0
        self._in_headers = True
        self._idle = False
        self._last = False
        self._due_s: float | None = None
        """How long the coming request has for its next step, where that changed with what is being parsed."""
        self.due = clock() + shared.limits.header_timeout_s
        self.over = False
        self.silent = True

    def receive(self, data: bytes) -> Iterator[bytes]:
        """What to send now that `data` came: each answer is made when it is asked for, and is to be sent at once."""
        message = self._messages
        broken = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            broken = "only HTTP/1.1 is spoken here: send no Upgrade"
        except httptools.HttpParserError:
            broken = "this is not HTTP"
        # What came whole before it is answered first.
        while self._waiting:
            yield self._answer(self._waiting.popleft())
            if self.over:
                return
        if broken:
            yield self.refuse(400, broken)
        elif (coming := self._coming) is not None:
            yield from self._go_on(coming, len(data) if self._messages == message else 0)
        elif self._idle and self._due_s is None:
            self.due = self._clock() + self._limits.idle_timeout_s
            self._idle = False

    def expire(self) -> bytes:
        """`due` passed: what to send, if anything. A request that is refused already gets its own answer."""
        coming = self._coming
        if coming is None and self._messages:
            self.over = True
            return b""
        if coming is not None and coming.refusal is not None:
            return self._give_up(coming, coming.refusal)
        return self.refuse(408, "no whole request came in time")

    def refuse(self, status: int, message: str) -> bytes:
        """End the conversation: what to send."""
        return self._give_up(self._coming or _Request(), Refusal(status, message))

    def finish(self) -> None:
        """End after the answer that is being made. May be called by another thread."""
        self._last = True

    def close(self) -> None:
        """Let go of every body."""
        self.over = True
        for request in (self._coming, *self._waiting):
            self._release(request)
        self._coming = None
        self._waiting.clear()

    def _go_on(self, coming: _Request, more_bytes: int) -> Iterator[bytes]:
        """A request has come in part, `more_bytes` of them just now and not its first.

        It is refused when it grows too large, whatever it grows by: the parser keeps what it is fed. The segment that
        a message begins in may hold others before it and is not counted: the bound holds to within one read.
        """
        limits = self._limits
        self._message_bytes += more_bytes
        if self._due_s is not None:
            self.due = self._clock() + self._due_s
            self._due_s = None
        if self._in_headers and self._message_bytes > limits.http_header_bytes:
            yield self.refuse(431, f"the header fields are larger than {limits.http_header_bytes} bytes")
        elif self._message_bytes > limits.drain_bytes:
            yield self._give_up(coming, coming.refusal or too_large(limits))
        elif coming.asks_first and coming.refusal is not None:
            yield self._give_up(coming, coming.refusal)
        elif coming.asks_first:
            coming.asks_first = False
            yield b"HTTP/1.1 100 Continue\r\n\r\n"

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
        request.takes_body = method not in ("GET", "HEAD")
        request.keep_alive = self._parser.get_http_version() == "1.1" and self._parser.should_keep_alive()
        request.asks_first = self._fields.get(b"expect", b"").lower() == b"100-continue"
        try:
            request.handler = self._shared.route(Head(method, _path(self._url), self._fields))
            if int(self._fields.get(b"content-length", b"0")) > self._limits.body_bytes:
                raise too_large(self._limits)
        except Refusal as refusal:
            request.refusal = refusal
        except httptools.HttpParserInvalidURLError:
            request.refusal = Refusal(400, "this is no path", close=True)
        except Exception:  # noqa: BLE001 - `_fault` logs it
            request.refusal = _fault()

    def on_body(self, part: bytes) -> None:
        """A part of the body; what is refused is read and thrown away, so that its sender gets to read why."""
        request = self._coming
        if request is None:
            return
        request.asks_first = False
        request.size_bytes += len(part)
        if request.refusal is None and request.size_bytes > self._limits.body_bytes:
            request.refusal = too_large(self._limits)
        elif request.refusal is None and request.takes_body and not self._shared.held.take(len(part)):
            later = ((b"retry-after", b"1"),)
            request.refusal = Refusal(503, "too many large requests at once: try again", fields=later, close=True)
        if request.refusal is not None:
            self._release(request)
        elif request.takes_body:
            request.body += part

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._coming is not None:
            self._waiting.append(self._coming)
            self._coming = None
            self.silent = False
            self._due_s = None
            self._idle = True

    # Answering.

    def _answer(self, request: _Request) -> bytes:
        """The answer to a request that is whole."""
        result = request.refusal or self._handle(request)
        self._release(request)
        reply, close = (result.reply, result.close) if isinstance(result, Refusal) else (result, False)
        self.over = close or self._last or not request.keep_alive
        return reply.encode(with_body=request.with_body, close=self.over)

    def _handle(self, request: _Request) -> Reply | Refusal:
        if request.handler is None:
            return _fault()
        try:
            result = request.handler(bytes(request.body))
            if isinstance(result, Slow):
                with self._shared.slow:
                    return result.work()
        except Refusal as refusal:
            return refusal
        except Exception:  # noqa: BLE001 - `_fault` logs it
            return _fault()
        else:
            return result

    def _give_up(self, request: _Request, refusal: Refusal) -> bytes:
        """The answer to a request that is not whole; nothing more is taken."""
        self.close()
        return refusal.reply.encode(with_body=request.with_body, close=True)

    def _release(self, request: _Request | None) -> None:
        """Let go of a body."""
        if request is not None:
            self._shared.held.give(len(request.body))
            request.body = bytearray()


def _fault() -> Refusal:
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
