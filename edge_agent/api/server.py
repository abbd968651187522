"""The local API's server: a thread with an event loop of its own."""

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from edge_agent.api.app import App
from edge_agent.api.connection import Connection, Shared
from edge_agent.api.limits import Limits
from edge_agent.api.metrics import Family
from edge_agent.api.status import Status
from edge_agent.inference.registry import Models
from edge_models.errors import ConfigError, RetryableError
from edge_sync.mqtt import is_loopback

START_TIMEOUT_S = 10.0

FINISH_TIMEOUT_S = 2.0
"""For requests under way when the API closes."""

_WORKERS = 2
"""Threads for what is slow. More would take processor time from the agents without answering sooner."""

_BACKLOG = 128


class LocalApi:
    """The site's HTTP API, between `start` and `close`.

    Raises `ConfigError` for an address other machines reach without a token.
    """

    def __init__(
        self,
        models: Models,
        status: Callable[[], Status],
        metrics: Callable[[], Iterable[Family]],
        host: str = "127.0.0.1",
        port: int = 8080,
        token: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        """`status` and `metrics` are called on threads of the API; a `port` of 0 is any that is free."""
        if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
            raise ConfigError("the API token is empty or has spaces or characters that HTTP cannot carry")
        if token is None and not is_loopback(host):
            raise ConfigError(f"api.host {host!r} can be reached from other machines: set api.token_file, or 127.0.0.1")
        self._host, self._wanted_port, self._port = host, port, 0
        self._executor = ThreadPoolExecutor(_WORKERS, thread_name_prefix="local-api")
        limits = limits or Limits()
        self._shared = Shared(App(models, status, metrics, token, limits), self._executor, limits)
        self._thread: threading.Thread | None = None
        self._started = threading.Event()

    @property
    def port(self) -> int:
        """The port it listens on; 0 before `start`."""
        return self._port

    def start(self) -> None:
        """Listen, and answer from a thread of its own. Raises `ConfigError` naming what to change."""
        listening = _listen(self._host, self._wanted_port)
        self._port = listening.getsockname()[1]
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listening)), name="local-api", daemon=True
        )
        self._thread.start()
        if not self._started.wait(START_TIMEOUT_S):
            raise RetryableError(f"the local API did not start in {START_TIMEOUT_S:g} s")

    def close(self) -> None:
        """Finish the requests under way and stop listening. May be called twice."""
        if self._thread is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(2 * FINISH_TIMEOUT_S)
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, listening: socket.socket) -> None:
        """Accept connections until `close`, then let those that serve a request finish."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await self._loop.create_server(lambda: Connection(self._shared), sock=listening, backlog=_BACKLOG)
        self._started.set()
        await self._stop.wait()
        server.close()
        for connection in list(self._shared.open):
            connection.finish()
        try:
            async with asyncio.timeout(FINISH_TIMEOUT_S):
                while self._shared.open:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            for connection in list(self._shared.open):
                connection.abort()
        # One turn of the loop for the transports to close their sockets.
        await asyncio.sleep(0)


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises `ConfigError`: why not, and what to do."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"api.host {host!r} is no address of this machine: {error.strerror}") from None
    listening = socket.socket(family, kind, proto)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(_why(host, port, error)) from None
    return listening


def _why(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: set api.port in the site file to another (0: any free one)"
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges this process does not have: set api.port to one above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"api.host {host!r} is no address of this machine"
    return f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}"
