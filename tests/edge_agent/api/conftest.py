"""A local API that really listens, and a raw socket to be rude with."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from edge_agent.api.limits import Limits
from edge_agent.api.metrics import Family, Sample
from edge_agent.api.server import LocalApi
from edge_agent.api.status import Status
from edge_agent.inference.model import Model
from edge_agent.inference.registry import Models
from edge_models.bundle import Bundle

REPLY_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back on a raw connection."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """The message of an error in the protocol's form; nothing else may be in it."""
        said = json.loads(self.body)
        assert list(said) == ["error"]
        assert "Traceback" not in said["error"]
        text: str = said["error"]
        return text


@dataclass(slots=True)
class Site:
    """A running API and the models behind it."""

    api: LocalApi
    models: Models
    sockets: ExitStack = field(default_factory=ExitStack)

    def connect(self) -> socket.socket:
        """A raw connection, closed with the test."""
        made = socket.create_connection(("127.0.0.1", self.api.port), timeout=REPLY_TIMEOUT_S)
        return self.sockets.enter_context(made)

    def ask(self, data: bytes, connection: socket.socket | None = None) -> Answer:
        """Send these bytes and read one whole response."""
        connection = connection or self.connect()
        connection.sendall(data)
        return self.answer(connection)

    def answer(self, connection: socket.socket) -> Answer:
        """Read one whole response."""
        with connection.makefile("rb") as file:
            status = int(file.readline().split()[1])
            headers = {}
            while line := file.readline().strip():
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            return Answer(status, headers, file.read(int(headers["content-length"])))

    def get(self, path: str, **headers: str) -> Answer:
        """GET a path."""
        return self.ask(_head("GET", path, headers))

    def post(self, path: str, body: bytes | dict[str, Any], **headers: str) -> Answer:
        """POST a body, JSON where it is a dict, with an honest length unless `headers` says otherwise."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask(_head("POST", path, {"content_length": str(len(data)), **headers}) + data)


def _head(method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in {"host": "localhost", **headers}.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def status() -> Status:
    """A site's status as a supervisor would fill it in."""
    return {"site": "plant-01", "headline": "All is well."}


def metrics() -> tuple[Family, ...]:
    """A family of the site's own."""
    return (Family("edge_outbox_rows", "gauge", "Records to report.", (Sample(3, {}),)),)


@pytest.fixture
def open_site(bundle: Bundle) -> Iterator[Callable[..., Site]]:
    """Starts an API with the plain bundle as model `pump`."""
    with ExitStack() as stack:

        def start(token: str | None = None, host: str = "127.0.0.1", **limits: Any) -> Site:
            models = Models()
            models.swap({"pump": Model(bundle)})
            api = LocalApi(models, status, metrics, host, 0, token, Limits(**limits))
            api.start()
            stack.callback(api.close)
            site = Site(api, models)
            stack.callback(site.sockets.close)
            return site

        yield start


@pytest.fixture
def site(open_site: Callable[..., Site]) -> Site:
    """The API with its default bounds."""
    return open_site()
