"""A server's own thread: uvicorn on a socket that is bound already."""

import asyncio
import logging
import socket
import ssl
import threading
import time

import uvicorn
from starlette.types import ASGIApp

from edge_hub.address import host_and_port
from edge_models.errors import ConfigError, RetryableError
from edge_sync.mqtt import is_loopback

START_S = 10.0


def bind(address: str) -> socket.socket:
    """A listening socket on HOST:PORT; port 0 is any. Raises `ConfigError`."""
    host, port = host_and_port("--http", address, "127.0.0.1:8600")
    if not is_loopback(host):
        raise ConfigError(
            f"--http {address!r}: the API speaks no TLS yet, so it listens on this machine only: "
            "use 127.0.0.1 and put a TLS proxy before it"
        )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(f"--http {address!r}: {error.strerror}: choose another port") from None


def url_of(listening: socket.socket) -> str:
    """Where the socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpServer:
    """Serves `app`; owns the socket from `start` on."""

    def __init__(
        self,
        app: ASGIApp,
        listening: socket.socket,
        name: str = "http",
        tls: ssl.SSLContext | None = None,
        protocol: type[asyncio.Protocol] | None = None,
        most: int = 100,
    ) -> None:
        """`most`: connections at once. `tls` may be given other certificates while it serves."""
        self._socket, self._name = listening, name
        # What goes wrong inside a request is logged once, by `replies.defect`.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        config = uvicorn.Config(
            app,
            http=protocol or "auto",
            ws="none",
            loop="asyncio",
            proxy_headers=tls is None,  # a site speaks to us itself, and may not say that it is another
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            limit_concurrency=most,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=3,
        )
        config.load()
        config.ssl = tls
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listening],), name=name, daemon=True)

    def start(self) -> None:
        """Begin, and wait until it answers. Raises `RetryableError`."""
        self._thread.start()
        deadline = time.monotonic() + START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RetryableError(f"the server {self._name!r} did not start")
            time.sleep(0.01)

    def close(self) -> None:
        """Finish what is asked and end."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()
