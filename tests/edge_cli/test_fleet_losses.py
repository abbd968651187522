"""`edge-agent fleet losses` and `fleet explain` against a hub's real API, which needs no broker for them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from edge_cli import fleet, fleet_losses
from edge_cli.hub_client import HubClient, HubRefusal
from edge_hub.api.app import make_app
from edge_hub.broker import BrokerFolder
from edge_hub.database.schema import gaps, records, sites, streams
from edge_hub.folder import HubFolder
from edge_hub.http_server import HttpServer, bind, url_of
from edge_hub.hub import Hub
from edge_hub.records import incidents
from edge_hub.records.accounts import Accounts
from edge_hub.records.words import word_of_hello
from edge_models.errors import ConfigError, RejectedError
from edge_sync.documents import EpochState, Hello
from edge_sync.rows import record_id

A, B = f"{10:016x}", f"{11:016x}"
Run = Callable[..., Result]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = HubFolder(tmp_path / "hub")
    made = Hub(folder, BrokerFolder(folder.broker), "mqtt://127.0.0.1:1883")
    for site in ("plant-01", "plant-02"):
        made.sites.register(site, {}, False, "operator")
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
def run(hub: Hub, client: HubClient) -> Run:
    def invoke(*words: str) -> Result:
        return CliRunner().invoke(fleet.app, [*words, "--hub-dir", str(hub.folder.path)])

    return invoke


@pytest.fixture
def lossy(hub: Hub) -> Hub:
    """plant-01 evicted three records, then its disk was replaced; two processes run as plant-02."""
    row = {"site": "plant-01", "epoch": A, "lane": "telemetry", "first": 1, "last": 3, "hash": b"", "at_us": 9}
    with hub.store.writing() as db:
        db.execute(gaps.insert().values(row | {"reason": "evicted: [the disk budget] is spent"}))
        stream = {"site": "plant-01", "epoch": A, "lane": "telemetry", "high": 3, "hash": b"", "since_us": 9}
        db.execute(streams.insert().values(stream))
        for state in (
            EpochState(epoch=A, order=1, last={"decision": 4}),
            EpochState(epoch=B, order=1, last={"decision": 1}),
        ):
            Accounts().take(db, "plant-01", word_of_hello(Hello(sync="s", epochs=[state]), False), 7)
        incidents.note(db, 8, "plant-02", "two_processes", f"{A}+{B}", {"epochs": [A, B]})
    return hub


def shown(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_losses_and_incidents_are_listed(run: Run, lossy: Hub) -> None:
    said = shown(run("losses", "--json"))
    assert [(each["kind"], each["lane"], each["count"]) for each in said["losses"]] == [
        ("unknown_tail", None, None),
        ("unknown_tail", "decision", 4),
        ("evicted", "telemetry", 3),
    ]
    assert [(each["site"], each["what"], each["times"]) for each in said["incidents"]] == [
        ("plant-02", "two_processes", 1)
    ]
    evicted = shown(run("losses", "plant-01", "--reason", "evicted", "--json"))
    assert evicted["losses"] == said["losses"][2:]
    assert evicted["incidents"] == []
    assert evicted["losses"][0] == {
        "site": "plant-01",
        "epoch": A,
        "lane": "telemetry",
        "first": 1,
        "last": 3,
        "reason": "evicted: [the disk budget] is spent",
        "at_us": 9,
        "count": 3,
        "kind": "evicted",
    }


def test_losses_are_shown_to_people(run: Run, lossy: Hub) -> None:
    lines = [" ".join(line.split()) for line in run("losses").stdout.splitlines()]
    assert lines[1].startswith(f"plant-01 ? unknown tail - {A} unknown tail: the site lost this epoch")
    assert lines[2].startswith(f"plant-01 4 unknown tail 1970-01-01 00:00 {A}:decision:1-4 unknown tail: ")
    assert lines[3].endswith(f"{A}:telemetry:1-3 evicted: [the disk budget] is spent")
    assert lines[-1].startswith("plant-02 1 two processes 1970-01-01 00:00 ")
    assert "nothing is known to be lost" in run("losses", "plant-02").stderr
    assert run("ls").stdout.splitlines()[1].split()[4:8] == ["0", "1", "3", "4+"]
    said = run("show", "plant-01").stdout
    assert "unknown 4: never came" in said
    assert "perhaps more: it lost an epoch before the end: edge-agent fleet losses plant-01" in said
    assert run("ls").stdout.splitlines()[2].split()[4:8] == ["0", "0", "0", "0"]


def test_a_site_that_was_revoked_is_no_broken_link(run: Run, hub: Hub) -> None:
    with hub.store.writing() as db:
        db.execute(sites.update().where(sites.c.site == "plant-02").values(revoked_us=9))
    assert [line.split()[1] for line in run("ls").stdout.splitlines()] == ["LINK", "down", "revoked"]
    assert "nothing of it is let in until it is registered anew" in run("show", "plant-02").stdout


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], ["plant-01", "plant-02"]),
        (["--link", "down"], ["plant-01"]),
        (["--link", "revoked", "--label", "kind=shop"], ["plant-02"]),
        (["--label", "kind=shop", "--label", "region=south"], []),
        (["--release", "3"], ["plant-02"]),
        (["--lossy"], ["plant-01"]),
    ],
)
def test_of_many_sites_some_are_listed(run: Run, lossy: Hub, options: list[str], wanted: list[str]) -> None:
    with lossy.store.writing() as db:
        changed = {"revoked_us": 9, "labels": {"kind": "shop"}, "release": 3}
        db.execute(sites.update().where(sites.c.site == "plant-02").values(changed))
    assert [each["site"] for each in shown(run("ls", *options, "--json"))["sites"]] == wanted
    said = run("ls", *options)
    assert [line.split()[0] for line in said.stdout.splitlines()[1:]] == wanted
    assert said.stderr == ("" if len(wanted) == 2 else f"{len(wanted)} of 2 sites\n")


def test_losses_are_read_page_by_page(run: Run, lossy: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    every = shown(run("losses", "--json"))["losses"]
    monkeypatch.setattr(fleet_losses, "PAGE", 1)
    assert shown(run("losses", "--json"))["losses"] == every


@pytest.mark.parametrize("path", ["losses?site=plant-09", "incidents?site=plant-09"])
def test_a_site_that_is_not_known_has_no_losses_to_ask_for(client: HubClient, path: str) -> None:
    with pytest.raises(HubRefusal, match="no site 'plant-09'") as refused:
        client.request("GET", f"/api/v1/{path}")
    assert refused.value.status == 404


@pytest.mark.parametrize("query", ["after=x", "after=a:b:c:-1", "limit=0", "limit=1001", "sort=up", "reason=stolen"])
def test_what_can_not_be_asked_is_refused(client: HubClient, query: str) -> None:
    with pytest.raises(HubRefusal) as refused:
        client.request("GET", f"/api/v1/losses?{query}")
    assert refused.value.status == 400


def test_the_metrics_count_what_is_unknown_and_what_a_person_should_see(lossy: Hub, client: HubClient) -> None:
    totals = lossy.sites.totals()
    assert (totals["lost"], totals["unknown"], totals["incidents"]) == (3, 4, 1)


@pytest.fixture
def acted(hub: Hub) -> list[str]:
    """A chain at the hub as a site writes it, and after it a person's word; the ids."""
    bodies: list[tuple[str, str, Any]] = [
        ("telemetry", "observation", {"_topic": "t", "vibration": [0.1] * 9, "note": "[red]"}),
        ("telemetry", "prediction", {"model": "sha256:aa", "version": "2"}),
        ("decision", "decision", {"policy": {"name": "guard", "version": "3"}, "conditions": []}),
        ("decision", "approval", {"answer": "refused", "who": "anna"}),
        ("alarm", "action", {"status": "refused"}),
    ]
    made: list[str] = []
    with hub.store.writing() as db:
        for number, (lane, kind, body) in enumerate(bodies, 1):
            ref = made[min(number - 2, 2)] if made else None
            row = {"site": "plant-01", "epoch": A, "lane": lane, "seq": number, "kind": kind, "ref": ref}
            row |= {"at": number, "agent": "press", "subject": None, "label": "stop", "score": None}
            db.execute(records.insert().values(row | {"body": json.dumps(body), "hash": b"h", "received_us": number}))
            made.append(record_id(A, lane, number))
        broken = {"site": "plant-01", "epoch": A, "lane": "decision", "seq": 99, "kind": "decision", "ref": made[1]}
        broken |= {"at": 2**62, "agent": "", "subject": None, "label": None, "score": None, "body": "[", "hash": b""}
        db.execute(records.insert().values(broken | {"received_us": 99}))
    return [*made, record_id(A, "decision", 99)]


def test_a_record_is_explained_as_its_site_would(run: Run, acted: list[str]) -> None:
    said = shown(run("explain", "plant-01", acted[4], "--json"))
    assert [each["id"] for each in said["chain"]] == [*acted[:3], acted[4]]
    assert said["missing"] == []
    assert said["chain"][2]["body"]["policy"]["name"] == "guard"
    tree = run("explain", "plant-01", acted[2]).stdout
    for words in ("observation", "prediction", "▶ decision", "approval stop · answer=refused who=anna", "note=[red]"):
        assert words in tree


def test_a_record_that_is_none_is_shown_as_far_as_it_can_be(run: Run, acted: list[str]) -> None:
    result = run("explain", "plant-01", acted[5])
    assert (result.exit_code, f"{2**62} µs" in result.stdout) == (0, True)
    assert shown(run("explain", "plant-01", acted[5], "--json"))["chain"][-1]["body"] == {"body": "["}


def test_what_is_not_held_is_said(run: Run, acted: list[str]) -> None:
    missing = run("explain", "plant-02", acted[0])
    assert isinstance(missing.exception, RejectedError)
    assert f"no record {acted[0]} of site 'plant-02' is held here" in str(missing.exception)
    assert isinstance(run("explain", "plant-01", "nonsense").exception, ConfigError)
