"""A hub's API over real HTTP; nothing here needs a broker."""

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from edge_hub.api.app import make_app
from edge_hub.broker import BrokerFolder
from edge_hub.folder import HubFolder
from edge_hub.http_server import HttpServer, bind, url_of
from edge_hub.hub import Hub

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    """A hub whose link is not started, over SQLite or, where a test asks for it, PostgreSQL."""
    folder = HubFolder(tmp_path / "hub")
    database = request.getfixturevalue("postgres_url") if getattr(request, "param", None) == "postgresql" else None
    made = Hub(folder, BrokerFolder(folder.broker), "mqtt://127.0.0.1:1883", database)
    yield made
    made.close()


@pytest.fixture
def ask(hub: Hub) -> Iterator[Ask]:
    """Asks it by HTTP, as its operator unless another token is given: status and answer, parsed where it is JSON."""
    listening = bind("127.0.0.1:0")
    address = urlsplit(url_of(listening)).netloc
    server = HttpServer(make_app(hub), listening)
    server.start()

    def request(
        method: str, path: str, body: Any = None, token: str | None = hub.folder.token, **headers: str
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(address, timeout=10)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        kind = answer.headers["content-type"]
        if kind == "application/octet-stream":
            return answer.status, text
        return answer.status, json.loads(text) if kind == "application/json" else text.decode()

    yield request
    server.close()
