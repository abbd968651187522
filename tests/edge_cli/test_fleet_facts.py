"""`edge-agent fleet facts` and `fleet fact …` against a hub's real API, which needs no broker for them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from edge_cli import fleet
from edge_cli.hub_client import HubClient, HubRefusal
from edge_hub.api.app import make_app
from edge_hub.broker import BrokerFolder
from edge_hub.database.schema import audit as audit_table
from edge_hub.facts.site_facts import note
from edge_hub.folder import HubFolder
from edge_hub.http_server import HttpServer, bind, url_of
from edge_hub.hub import Hub
from edge_hub.records import audit
from edge_models.errors import ConfigError, RejectedError
from edge_sync.rows import Row

EPOCH = "00000000000000aa"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = HubFolder(tmp_path / "hub")
    made = Hub(folder, BrokerFolder(folder.broker), "mqtt://127.0.0.1:1883")
    yield made
    made.close()


@pytest.fixture
def client(hub: Hub) -> Iterator[HubClient]:
    listening = bind("127.0.0.1:0")
    hub.folder.announce({"http": url_of(listening)})
    server = HttpServer(make_app(hub), listening)
    server.start()
    yield HubClient(url_of(listening), hub.folder.token)
    server.close()


@pytest.fixture
def run(hub: Hub, client: HubClient) -> Callable[..., Result]:
    def invoke(*words: str) -> Result:
        return CliRunner().invoke(fleet.app, [*words, "--hub-dir", str(hub.folder.path)])

    return invoke


def shown(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_fact_is_set_listed_and_deleted(run: Callable[..., Result], hub: Hub, client: HubClient) -> None:
    made = shown(run("fact", "set", "tariff/2", '{"peak": [true, null]}', "--expires", "24h", "--json"))
    assert (made["key"], made["value"]) == ("tariff/2", {"peak": [True, None]})
    assert made["expires_at_us"] - made["set_us"] == 86_400_000_000
    assert client.request("GET", "/api/v1/facts/tariff%2F2") == made
    assert run("fact", "set", "note", "no JSON").exit_code == 0
    listed = shown(run("fact", "ls", "--json"))
    assert [(each["key"], each["value"]) for each in listed["facts"]] == [
        ("note", "no JSON"),
        ("tariff/2", {"peak": [True, None]}),
    ]
    assert (listed["version"], listed["sites"]) == (listed["facts"][0]["version"], 0)
    table = run("fact", "ls").stdout
    assert "tariff/2" in table
    assert '{"peak": [true, null]}' in table
    assert shown(run("fact", "delete", "tariff/2", "--json")) == {"deleted": "tariff/2"}
    assert [each["key"] for each in shown(run("fact", "ls", "--json"))["facts"]] == ["note"]
    with hub.store.reading() as db:
        done = [row.what for row in db.execute(select(audit_table).order_by(audit_table.c.id))]
        assert audit.verify(db) is None
    assert done == ["fleet fact set", "fleet fact set", "fleet fact deleted"]


def test_what_a_site_knows_is_listed(run: Callable[..., Result], hub: Hub, client: HubClient) -> None:
    client.request("POST", "/api/v1/sites", json={"site": "plant-01"})
    assert shown(run("facts", "plant-01", "--json")) == {"facts": []}
    assert "has set no facts" in run("facts", "plant-01").output
    body = json.dumps({"key": "mode", "value": "[b]auto", "expires_at": 2**62})
    with hub.store.writing() as db:
        note(db, 1, ("plant-01", EPOCH, "decision"), [Row(4, 1, "fact", "press", None, None, None, None, body)])
    [known] = shown(run("facts", "plant-01", "--json"))["facts"]
    assert known == {"key": "mode", "value": "[b]auto", "expires_at_us": 2**62, "origin": f"{EPOCH}:decision:4"}
    table = run("facts", "plant-01").stdout
    assert "[b]auto" in table
    assert "later" in table


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("fact", "set", "k", "1", "--expires", "soon"), "write a time as in 90s, 30m, 24h or 7d"),
        (("fact", "set", "k", "1", "--expires", "0s"), "write a time as in"),
    ],
)
def test_what_is_wrong_is_one_line(run: Callable[..., Result], words: tuple[str, ...], problem: str) -> None:
    result = run(*words)
    assert isinstance(result.exception, ConfigError)
    assert problem in str(result.exception)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("fact", "delete", "nothing"), "no fact of the fleet is called 'nothing'"),
        (("fact", "set", "k", "null"), "null is no value"),
        (("fact", "set", "k" * 201, "1"), "1 to 200 printable characters"),
        (("fact", "set", "k", "x" * 17_000), "the most is 16384"),
        (("facts", "plant-09"), "no site 'plant-09' is registered"),
    ],
)
def test_what_the_hub_refuses_is_one_line(run: Callable[..., Result], words: tuple[str, ...], problem: str) -> None:
    result = run(*words)
    assert isinstance(result.exception, RejectedError)
    assert problem in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize(
    ("method", "path", "json_body", "status"),
    [
        ("GET", "/api/v1/facts/nothing", None, 404),
        ("DELETE", "/api/v1/facts/nothing", None, 404),
        ("PUT", "/api/v1/facts/k", {"value": 1, "expires_in_s": 0}, 400),
        ("PUT", "/api/v1/facts/k", {"value": 1, "expires_in_s": 1e300}, 400),
        ("PUT", "/api/v1/facts/k", {"value": 1, "expires": 5}, 400),
        ("PUT", "/api/v1/facts/k", {}, 400),
        ("PUT", "/api/v1/facts/", {"value": 1}, 400),
        ("GET", "/api/v1/sites/plant-09/facts", None, 404),
    ],
)
def test_the_api_says_no_with_the_right_status(
    client: HubClient, method: str, path: str, json_body: Any, status: int
) -> None:
    with pytest.raises(HubRefusal) as refusal:
        client.request(method, path, json=json_body)
    assert refusal.value.status == status
