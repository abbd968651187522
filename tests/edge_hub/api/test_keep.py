"""`/api/v1/keep` and the erasing of a subject, over real HTTP; nothing here needs a broker."""

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from edge_hub.api.app import make_app
from edge_hub.broker import BrokerFolder
from edge_hub.folder import HubFolder
from edge_hub.http_server import HttpServer, bind, url_of
from edge_hub.hub import Hub
from edge_hub.ingest.journal import Arrived, store_batches
from edge_sync.batch import decode, encode
from edge_sync.rows import Row, chain, chain_start, row_bytes

Ask = Callable[..., tuple[int, Any]]
EPOCH = "00000000000000aa"
NAME = "line/3 – Mara Blom?"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = HubFolder(tmp_path / "hub")
    made = Hub(folder, BrokerFolder(folder.broker), "mqtt://127.0.0.1:1883")
    made.sites.register("plant-01", {}, False, "operator")
    raw = row_bytes(Row(1, 1, "observation", "gate", NAME, None, None, None, "{}"))
    start = chain_start(EPOCH, "telemetry")
    message = encode(EPOCH, "telemetry", [raw], [], (1, 1), (start, chain(start, raw)))
    with made.store.writing() as db:
        store_batches(db, [Arrived("plant-01", decode(message), message)], 5)
    yield made
    made.close()


@pytest.fixture
def ask(hub: Hub) -> Iterator[Ask]:
    listening = bind("127.0.0.1:0")
    address = urlsplit(url_of(listening)).netloc
    server = HttpServer(make_app(hub), listening)
    server.start()

    def request(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(address, timeout=10)
        headers = {"Authorization": f"Bearer {hub.folder.token}"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    yield request
    server.close()


def test_rules_are_set_listed_and_taken_away(ask: Ask) -> None:
    assert ask("GET", "/api/v1/keep") == (200, {"keep": []})
    assert ask("PUT", "/api/v1/keep", {"kind": "observation", "days": 7})[0] == 200
    assert ask("PUT", "/api/v1/keep", {"kind": "observation", "days": 9})[0] == 200
    assert ask("PUT", "/api/v1/keep", {"agent": "press", "days": 30})[0] == 200
    assert ask("GET", "/api/v1/keep")[1]["keep"] == [
        {"kind": "*", "agent": "press", "days": 30},
        {"kind": "observation", "agent": "*", "days": 9},
    ]
    assert ask("DELETE", "/api/v1/keep?kind=observation")[0] == 200
    assert ask("DELETE", "/api/v1/keep?kind=observation")[0] == 404
    assert len(ask("GET", "/api/v1/keep")[1]["keep"]) == 1


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"kind": "picture", "days": 7}, "kind 'picture': there are observation"),
        ({"days": 0}, "days 0: wanted 1 to 36500"),
        ({"days": 7.5}, "days"),
        ({}, "days"),
        ({"days": 7, "site": "plant-01"}, "site"),
        ({"agent": "", "days": 7}, "agent"),
    ],
)
def test_what_is_no_rule_is_refused(ask: Ask, rule: Any, why: str) -> None:
    status, answer = ask("PUT", "/api/v1/keep", rule)
    assert (status, why in answer["error"]) == (400, True)


def test_a_subject_is_erased_whatever_its_name(ask: Ask) -> None:
    path = f"/api/v1/sites/plant-01/subjects/{quote(NAME, safe='')}"
    assert ask("DELETE", path) == (200, {"records": 1, "facts": 0, "quarantined": 0, "overwritten": True})
    assert ask("DELETE", path)[0] == 404
    assert ask("DELETE", "/api/v1/sites/plant-09/subjects/x")[0] == 404
    assert ask("GET", f"/api/v1/sites/plant-01/records/{EPOCH}:telemetry:1")[0] == 404
    [gap] = ask("GET", "/api/v1/sites/plant-01/gaps")[1]["gaps"]
    assert (gap["first"], gap["last"], gap["reason"]) == (1, 1, "erased")


def test_what_expired_or_was_erased_is_no_loss(ask: Ask) -> None:
    ask("DELETE", f"/api/v1/sites/plant-01/subjects/{quote(NAME, safe='')}")
    shown = ask("GET", "/api/v1/sites/plant-01")[1]
    assert (shown["records"], shown["lost"]) == (0, 0)
