"""A small HTTP endpoint at the site that machines and scripts POST JSON objects to.

asyncio and httptools, not `http.server`: that gives each connection a thread and each slow sender as long as it
likes. Not uvicorn: it bounds neither how long a request may take to arrive nor its size, and brings an ASGI
application where one route is needed. Here the parser is llhttp, and one deadline and one size hold for everything
that a connection sends.
"""

import asyncio
import errno
import hmac
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from edge_agent.records import Malformed, Observation
from edge_agent.sources.base import SourceContext
from edge_agent.sources.decode import MAX_MESSAGE_BYTES, excerpt, read_object
from edge_agent.sources.http_request import CONTINUE, Refused, Request, RequestReader, response
from edge_agent.sources.waiting import Waiting
from edge_models.errors import ConfigError, RejectedError, RetryableError
from edge_sync.mqtt import is_loopback
from edge_sync.yamlfile import validate

REQUEST_S = 10.0
"""From the first byte of a request to its last."""

IDLE_S = 60.0
"""How long a connection may be kept open between two requests."""

LINGER_S = 2.0
"""How long a refused sender is listened to, so that it gets to read why."""

READ_BYTES = 64 * 1024

MAX_CONNECTIONS = 64

_DECODED, _OVERHEAD_BYTES = 8, 1000
"""About what an observation takes in the queue: so many times its text, and so much beside."""


class HttpOptions(BaseModel):
    """Options of an `http` source."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    port: Annotated[int, Field(ge=0, le=65_535)]
    """0: any free port; `HttpSource.port` says which."""
    host: str = "127.0.0.1"
    """Anything but this machine needs `token_file`."""
    path: Annotated[str, Field(pattern=r"^/[!-~]*$")] = "/"
    token_file: Path | None = None
    """A file that holds what senders must show as ``Authorization: Bearer TOKEN``."""
    queue: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Observations that may wait for the agent; then senders are told to come back."""


class HttpSource:
    """Takes what is POSTed to one path. An answer of 202 says that it waits for the agent, not that it is durable."""

    def __init__(self, options: Mapping[str, Any], context: SourceContext) -> None:
        where = f"agent {context.agent!r}: source http"
        self._options = validate(HttpOptions, options, where)
        self._token = _read_token(context.base, self._options.token_file, where)
        if self._token is None and not is_loopback(self._options.host):
            raise ConfigError(f"{where}: host {self._options.host!r} can be reached from elsewhere: set token_file")
        self._now_us = context.now_us
        self._waiting: Waiting[Observation | Malformed] = Waiting(self._options.queue)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop = asyncio.Event()
        self._connections = 0
        self.port = self._options.port
        """Where it listens, from `start` on."""

    def start(self) -> None:
        """Listen. Raises `ConfigError` for a host or port that can't be had, `RetryableError` for one in use."""
        try:
            family = socket.AF_INET6 if ":" in self._options.host else socket.AF_INET
            listener = socket.create_server((self._options.host, self._options.port), family=family)
        except OSError as error:
            where = f"http source: {self._options.host} port {self._options.port}"
            if error.errno == errno.EADDRINUSE:
                raise RetryableError(f"{where} is in use by another program") from None
            raise ConfigError(f"{where}: {error.strerror}") from None
        self.port = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop, listener), name="source-http", daemon=True)
        self._thread.start()

    def take(self, most: int, timeout_s: float) -> list[Observation | Malformed]:
        """Wait up to `timeout_s` for a request, then return all that wait, `most` at the most."""
        return self._waiting.take(most, timeout_s)

    def done(self) -> None:
        """Nothing: the sender was answered on arrival."""

    def dropped(self) -> int:
        """None, ever: a full queue is the sender's to know."""
        return 0

    def exhausted(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Stop listening and end what is open."""
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        self._waiting.close()

    def _run(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._connection, sock=listener, limit=READ_BYTES)
        await self._stop.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= MAX_CONNECTIONS:
                await self._requests(reader, writer)
        except (OSError, TimeoutError):
            pass  # the sender is gone or too slow: it has no answer, so it knows
        finally:
            self._connections -= 1
            writer.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests = RequestReader(MAX_MESSAGE_BYTES)
        while True:
            async with asyncio.timeout(IDLE_S):
                data = await reader.read(READ_BYTES)
            async with asyncio.timeout(REQUEST_S):
                whole = requests.feed(data)
                while data and not whole:
                    if requests.expects_continue:
                        requests.expects_continue = False
                        writer.write(CONTINUE)
                    data = await reader.read(READ_BYTES)
                    whole = requests.feed(data)
                for request in whole:
                    writer.write(_refusal(request) if isinstance(request, Refused) else self._answer(request))
                await writer.drain()
            if not whole or isinstance(whole[-1], Refused) or not whole[-1].keep_alive:
                await _end(reader, writer)
                return

    def _answer(self, request: Request) -> bytes:
        def answer(status: int, error: str, **headers: str) -> bytes:
            return response(status, {"error": error}, request.keep_alive, **headers)

        if self._token is None:
            # A web page can make a browser on this machine send here: its Host or its content type gives it away.
            if not is_loopback(_hostname(request.headers.get("host", ""))):
                return answer(403, "without a token this serves only its own machine, by the name localhost")
        elif not hmac.compare_digest(request.headers.get("authorization", "").encode(), b"Bearer " + self._token):
            return answer(401, "wanted: Authorization: Bearer TOKEN", www_authenticate="Bearer")
        if request.target.partition("?")[0] != self._options.path:
            return answer(404, f"POST to {self._options.path}")
        if request.method != "POST":
            return answer(405, f"POST to {self._options.path}", allow="POST")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return answer(415, "wanted: content-type: application/json")
        try:
            taken: Observation | Malformed = Observation(read_object(request.body), self._now_us(), "http")
        except RejectedError as error:
            taken = Malformed(str(error), self._now_us(), "http", excerpt(request.body))
        if not self._waiting.offer(taken, len(request.body) * _DECODED + _OVERHEAD_BYTES):
            return answer(503, "the agent is busy: come back", retry_after="1")
        if isinstance(taken, Malformed):
            return answer(400, taken.reason)
        return response(202, {"queued": True}, request.keep_alive)


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say that this was all, and let a sender that is still sending come to the end and read its answer."""
    if writer.can_write_eof():
        writer.write_eof()
    async with asyncio.timeout(LINGER_S):
        for _ in range(MAX_MESSAGE_BYTES * 4 // READ_BYTES):
            if not await reader.read(READ_BYTES):
                return


def _refusal(refused: Refused) -> bytes:
    return response(refused.status, {"error": refused.error}, keep_alive=False)


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _read_token(base: Path, token_file: Path | None, where: str) -> bytes | None:
    if token_file is None:
        return None
    try:
        token = (base / token_file).read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"{where}: token_file {base / token_file}: {error.strerror}") from None
    if not token:
        raise ConfigError(f"{where}: token_file {base / token_file} is empty")
    return token
