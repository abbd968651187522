"""The local API's server: a thread that lets clients in, and one for each of them."""

import errno
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable

from edge_agent.api.app import App
from edge_agent.api.connection import Connection
from edge_agent.api.conversation import Shared
from edge_agent.api.limits import Limits
from edge_agent.api.metrics import Family
from edge_agent.api.status import Status
from edge_agent.inference.registry import Models
from edge_models.errors import ConfigError
from edge_sync.mqtt import is_loopback

log = logging.getLogger(__name__)

FINISH_TIMEOUT_S = 2.0
"""For requests under way when the API closes."""

_BACKLOG = 128

_ENDING = 64
"""Connections beyond the limit: they are told so, or wait for their client to end. Those beyond these are cut off."""

_FULL_S = 0.1
"""Before the next try where no client can be let in: most often there are no descriptors left."""

_THREAD = "local-api"


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
        limits = limits or Limits()
        self._most = limits.connections
        self._shared = Shared(App(models, status, metrics, token, limits), limits)
        self._wake, self._woken = socket.socketpair()
        self._accepting: threading.Thread | None = None
        self._open: dict[Connection, threading.Thread] = {}
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        """The port it listens on; 0 before `start`."""
        return self._port

    def start(self) -> None:
        """Listen, and answer from threads of its own. Raises `ConfigError` naming what to change."""
        listening = _listen(self._host, self._wanted_port)
        self._port = listening.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, args=(listening,), name=_THREAD, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Finish the requests under way and stop listening. May be called twice."""
        self._wake.close()
        if self._accepting is not None:
            self._accepting.join()
        self._woken.close()
        with self._lock:
            still = dict(self._open)
        for connection in still:
            connection.finish()
        _join(still.values())
        for connection in still:
            connection.abort()
        _join(still.values())

    def _accept(self, listening: socket.socket) -> None:
        """Let clients in until `close`."""
        with listening, selectors.DefaultSelector() as ready:
            ready.register(listening, selectors.EVENT_READ)
            ready.register(self._woken, selectors.EVENT_READ)
            while all(key.fileobj is listening for key, _ in ready.select()):
                try:
                    client, _ = listening.accept()
                except BlockingIOError:
                    continue  # it went away again
                except OSError as error:
                    log.warning("local_api_full", extra={"error": error.strerror})
                    time.sleep(_FULL_S)
                else:
                    self._let_in(client)

    def _let_in(self, client: socket.socket) -> None:
        """Serve a client, tell it that there are too many, or, where there are too many even for that, cut it off."""
        connection = Connection(client, self._shared)
        with self._lock:
            if len(self._open) >= self._most + _ENDING:
                client.close()
                return
            crowded = sum(not other.over for other in self._open) >= self._most
            # Who says nothing keeps out nobody, probes least of all.
            silent = next((other for other in self._open if other.silent), None) if crowded else None
            if silent is not None:
                silent.abort()
                crowded = False
            thread = threading.Thread(target=self._serve, args=(connection, crowded), name=_THREAD, daemon=True)
            self._open[connection] = thread
        try:
            thread.start()
        except RuntimeError:  # the machine has no thread left for it
            with self._lock:
                self._open.pop(connection)
            client.close()

    def _serve(self, connection: Connection, crowded: bool) -> None:
        try:
            if crowded:
                connection.turn_away(503, f"more than {self._most} connections: try again")
            else:
                connection.serve()
        finally:
            with self._lock:
                self._open.pop(connection)


def _join(threads: Iterable[threading.Thread]) -> None:
    """Give all of them together a moment to end."""
    deadline = time.monotonic() + FINISH_TIMEOUT_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


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
    listening.setblocking(False)
    return listening


def _why(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: set api.port in the site file to another (0: any free one)"
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges this process does not have: set api.port to one above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"api.host {host!r} is no address of this machine"
    return f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}"
