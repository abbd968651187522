"""The API over real HTTP, its hub's link not started: nothing here needs a broker."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from operator_desk import Operator

from edge_hub.broker import BrokerFolder
from edge_hub.database.schema import gaps, streams
from edge_hub.http_server import bind
from edge_hub.hub import Hub
from edge_hub.ingest.journal import Arrived, store_batches
from edge_hub.records import registry
from edge_models.digests import digest_of
from edge_models.errors import ConfigError
from edge_sync.batch import decode
from edge_sync.documents import Heartbeat, load
from edge_sync.release import AgentSpec, Release, SourceSpec, describe

Ask = Callable[..., tuple[int, Any]]


def deliver(hub: Hub, site: str, *messages: bytes) -> None:
    with hub.store.writing() as db:
        store_batches(db, [Arrived(site, decode(message), message) for message in messages], 5)


BUNDLE, POLICY = b"bundle", b"policy"
BLOBS = {digest_of(data): data for data in (BUNDLE, POLICY)}


def release(number: int) -> Release:
    agent = AgentSpec(name="press", bundle=digest_of(BUNDLE), policy=digest_of(POLICY), source=SourceSpec(kind="mqtt"))
    return Release.of(number, [agent], {str(digest): describe("x", data) for digest, data in BLOBS.items()})


def put_release(ask: Ask, number: int) -> tuple[int, Any]:
    for digest, data in BLOBS.items():
        assert ask("PUT", f"/api/v1/artifacts/{digest}", data)[0] in (200, 201)
    return ask("POST", "/api/v1/releases", release(number).model_dump(mode="json"))


def test_only_health_and_metrics_need_no_token(ask: Ask) -> None:
    assert ask("GET", "/healthz", token=None) == (200, {"ok": True, "broker": False})
    status, text = ask("GET", "/metrics", token=None)
    assert status == 200
    assert "edge_hub_records_total 0\n" in text
    assert "edge_hub_sites_online 0\n" in text
    for path in ("/api/v1/sites", "/api/v1/releases", "/nothing", "/api/v1/sites/plant-01"):
        for token in (None, "wrong", ""):
            status, answer = ask("GET", path, token=token)
            assert (status, "operator's token" in answer["error"]) == (401, True)
    assert ask("PUT", "/api/v1/artifacts/" + digest_of(b"x"), b"x", token=None)[0] == 401


def test_a_site_is_registered_once(ask: Ask, hub: Hub) -> None:
    status, made = ask("POST", "/api/v1/sites", {"site": "plant-01", "labels": {"kind": "factory"}})
    assert status == 201
    assert (made["site"], made["username"], made["local_username"]) == ("plant-01", "plant-01", "_local_plant-01")
    assert (made["broker_url"], made["director_key"]) == ("mqtt://127.0.0.1:1883", hub.director_key)
    users = BrokerFolder(hub.folder.broker).users()
    assert users["plant-01"].matches(made["password"])
    assert users["_local_plant-01"].matches(made["local_password"])
    status, answer = ask("POST", "/api/v1/sites", {"site": "plant-01"})
    assert (status, "registered already" in answer["error"]) == (409, True)
    status, again = ask("POST", "/api/v1/sites", {"site": "plant-01", "replace": True, "labels": {"kind": "shop"}})
    assert (status, again["password"] != made["password"]) == (201, True)
    (listed,) = ask("GET", "/api/v1/sites")[1]["sites"]
    assert listed == {
        "site": "plant-01",
        "labels": {"kind": "shop"},
        "online": False,
        "revoked_us": None,
        "last_seen_us": None,
        "release": None,
        "generation": None,
        "state": None,
        "records": 0,
        "backlog": 0,
        "lost": 0,
        "unknown": 0,
        "open_tails": 0,
        "quarantined": 0,
    }


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"site": "Plant 1"}, "site id 'Plant 1'"),
        ({"site": "fleet"}, "reserved"),
        ({}, "site: Field required"),
        ({"site": "plant-01", "label": {}}, "label: Extra inputs"),
        ({"site": "plant-01", "labels": {"a": 1}}, "labels.a"),
        (b"{", "body: Invalid JSON"),
        (b"\xff", "body: Invalid JSON"),
    ],
)
def test_a_registration_that_is_wrong_is_named(ask: Ask, body: Any, says: str) -> None:
    status, answer = ask("POST", "/api/v1/sites", body)
    assert status == 400
    assert says in answer["error"]
    assert ask("GET", "/api/v1/sites")[1]["sites"] == []


def test_what_is_not_there(ask: Ask) -> None:
    for path in ("sites/plant-01", "sites/plant-01/gaps", "sites/plant-01/records", "releases/3", "nothing"):
        status, answer = ask("GET", f"/api/v1/{path}")
        assert (status, list(answer)) == (404, ["error"])
    assert ask("DELETE", "/api/v1/sites")[0] == 405
    assert ask("GET", "/api/v1/sites/plant-01/records/aa:decision:1")[0] == 404


def test_records_page_by_page_in_both_directions(ask: Ask, hub: Hub, stream: Any) -> None:
    ask("POST", "/api/v1/sites", {"site": "plant-01"})
    decisions, alarms = stream("aa" * 8).grow(25), stream("aa" * 8, "alarm").grow(3, kind="event", agent="shelf")
    deliver(hub, "plant-01", decisions.batch(1, 25), alarms.batch(1, 3))
    for order in ("oldest", "newest"):
        seen, cursor = [], ""
        while cursor is not None:
            after = f"&after={cursor}" if cursor else ""
            status, answer = ask("GET", f"/api/v1/sites/plant-01/records?limit=10&order={order}{after}")
            assert status == 200
            seen += [record["id"] for record in answer["records"]]
            cursor = answer["next"]
        keys = [(lane, n) for lane, last in (("alarm", 3), ("decision", 25)) for n in range(1, last + 1)]
        expected = [f"{'aa' * 8}:{lane}:{n}" for lane, n in keys]
        assert seen == (expected if order == "oldest" else expected[::-1])
    filtered = ask("GET", "/api/v1/sites/plant-01/records?lane=alarm&kind=event&agent=shelf&epoch=" + "aa" * 8)[1]
    assert (len(filtered["records"]), filtered["next"]) == (3, None)
    one = ask("GET", f"/api/v1/sites/plant-01/records/{'aa' * 8}:decision:4")[1]
    assert (one["seq"], one["body"], one["hash"]) == (4, '{"n":4}', decisions.hashes[4].hex())
    assert ask("GET", f"/api/v1/sites/plant-01/records/{'aa' * 8}:decision:26")[0] == 404
    shown = ask("GET", "/api/v1/sites/plant-01")[1]
    assert (shown["records"], {each["lane"]: each["high"] for each in shown["streams"]}) == (
        28,
        {"alarm": 3, "decision": 25},
    )


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "order=up", "after=1", "after=aa:decision:x", "sort=at"]
)
def test_a_query_that_is_wrong_is_refused(ask: Ask, query: str) -> None:
    ask("POST", "/api/v1/sites", {"site": "plant-01"})
    assert ask("GET", f"/api/v1/sites/plant-01/records?{query}")[0] == 400


def test_gaps_are_shown_and_counted_as_lost(ask: Ask, hub: Hub, stream: Any) -> None:
    ask("POST", "/api/v1/sites", {"site": "plant-01"})
    deliver(hub, "plant-01", stream().grow(9).with_gap(1, 4, "evicted", 9))
    (gap,) = ask("GET", "/api/v1/sites/plant-01/gaps")[1]["gaps"]
    assert (gap["first"], gap["last"], gap["count"], gap["reason"]) == (1, 4, 4, "evicted")
    shown = ask("GET", "/api/v1/sites/plant-01")[1]
    assert (shown["records"], shown["lost"]) == (5, 4)
    assert "edge_hub_lost_records 4\n" in ask("GET", "/metrics")[1]


def test_a_release_from_its_bytes_to_a_push(ask: Ask, tmp_path: Path) -> None:
    ask("POST", "/api/v1/sites", {"site": "plant-01"})
    assert put_release(ask, 1) == (201, {"release": 1})
    assert put_release(ask, 1)[0] == 409
    assert [each["release"] for each in ask("GET", "/api/v1/releases")[1]["releases"]] == [1]
    assert ask("GET", "/api/v1/releases/1")[1] == release(1).model_dump(mode="json")
    status, answer = ask("POST", "/api/v1/releases/1/push", {"all": True})
    assert (status, "no trust metadata" in answer["error"]) == (404, True)
    operator = Operator.of_hub(tmp_path / "trust", lambda *words, json=None: ask(*words, json)[1])
    status, answer = ask("POST", "/api/v1/releases/1/push", {"all": True})
    assert (status, "its agents document is not signed" in answer["error"]) == (400, True)
    operator.sign(release(1), BLOBS)
    operator.hand_over(lambda *words, json=None: ask(*words, json)[1])
    pushed = {"release": 1, "pushed": [{"site": "plant-01", "generation": 1}]}
    assert ask("POST", "/api/v1/releases/1/push", {"sites": ["plant-01"]}) == (202, pushed)
    assert ask("POST", "/api/v1/releases/1/push", {"all": True})[1]["pushed"][0]["generation"] == 2
    assert ask("GET", "/api/v1/sites/plant-01")[1]["desired"] == {"release": 1, "generation": 2}
    refused: list[dict[str, Any]] = [{}, {"all": True, "sites": ["plant-01"]}, {"sites": []}]
    for wrong in refused:
        assert ask("POST", "/api/v1/releases/1/push", wrong)[0] == 400
    assert ask("POST", "/api/v1/releases/1/push", {"sites": ["plant-99"]})[0] == 404
    assert ask("POST", "/api/v1/releases/9/push", {"all": True})[0] == 404


def test_artifacts_are_what_their_digest_says(ask: Ask, hub: Hub) -> None:
    data = b"y" * 3_000_000
    path = f"/api/v1/artifacts/{digest_of(data)}"
    assert ask("GET", path)[0] == 404
    assert ask("PUT", path, data[:-1])[0] == 400
    assert ask("GET", path)[0] == 404
    assert ask("PUT", path, data) == (201, {"digest": digest_of(data), "size": len(data)})
    assert ask("PUT", path, data)[0] == 200
    assert ask("GET", path)[0] == 200
    assert hub.blobs.chunk(digest_of(data), 22) == data[22 * 128 * 1024 :]
    assert ask("PUT", "/api/v1/artifacts/sha256:../../etc", data)[0] in (400, 404)
    assert [entry.name for entry in hub.folder.blobs.iterdir()] == [digest_of(data)[7:]]


def test_every_body_has_a_limit(ask: Ask) -> None:
    status, answer = ask("POST", "/api/v1/sites", b" " * 600_000)
    assert (status, answer) == (413, {"error": "the body is over 524288 bytes"})
    chunks = iter([b" " * 100_000] * 6)
    assert ask("POST", "/api/v1/sites", b"".join(chunks))[0] == 413
    path = f"/api/v1/artifacts/{digest_of(b'x')}"
    assert ask("PUT", path, None, **{"Content-Length": str(2**40)})[0] == 413


def test_a_full_disk_is_not_now(ask: Ask, hub: Hub) -> None:
    with hub.store.reading() as db:
        pages = db.exec_driver_sql("PRAGMA page_count").scalar_one()
        db.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    labels = {str(n): "x" * 100 for n in range(50)}
    status, answer = ask("POST", "/api/v1/sites", {"site": "plant-01", "labels": labels})
    assert (status, "cannot do this now" in answer["error"]) == (503, True)
    assert "plant-01" not in BrokerFolder(hub.folder.broker).users()


@pytest.mark.parametrize(
    ("address", "says"),
    [("0.0.0.0:8600", "no TLS"), ("192.0.2.1:80", "no TLS"), ("8600", "HOST:PORT"), ("127.0.0.1:99999", "HOST:PORT")],
)
def test_where_it_does_not_listen(address: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        bind(address)


def test_a_port_in_use() -> None:
    with bind("127.0.0.1:0") as taken, pytest.raises(ConfigError, match="in use"):
        bind(f"127.0.0.1:{taken.getsockname()[1]}")


@pytest.mark.parametrize("hub", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize(
    "path",
    [
        "losses?site={}",
        "incidents?site={}",
        "sites/{}",
        "sites/{}/gaps",
        "sites/{}/records",
        "sites/{}/facts",
        "sites/{}/verify",
    ],
)
def test_what_is_asked_of_one_site_is_answered_by_either_database(hub: Hub, ask: Ask, path: str) -> None:
    hub.sites.register("plant-01", {}, False, "operator")
    status, answer = ask("GET", "/api/v1/" + path.format("plant-01"))
    assert (status, "error" in answer) == (200, False)
    status, answer = ask("GET", "/api/v1/" + path.format("plant-02"))
    assert (status, answer) == (404, {"error": "no site 'plant-02' is registered at this hub"})


def test_a_site_that_tells_of_more_than_can_be_counted_keeps_nobody_from_the_others(hub: Hub, ask: Ask) -> None:
    for name in ("plant-01", "plant-02"):
        hub.sites.register(name, {}, False, "operator")
    most = 2**53 - 1
    lie = {"lane": "alarm", "high": most, "hash": b"", "since_us": 1, "told": most, "last": 0}
    gap = {"lane": "alarm", "first": 1, "last": most, "reason": "evicted", "hash": b"", "at_us": 1}
    with hub.store.writing() as db:
        for n in range(1_100):
            db.execute(streams.insert().values(site="plant-01", epoch=f"{n:016x}", **lie))
            db.execute(gaps.insert().values(site="plant-01", epoch=f"{n:016x}", **gap))
    status, answer = ask("GET", "/api/v1/sites")
    assert status == 200
    assert [(each["site"], each["lost"]) for each in answer["sites"]] == [("plant-01", 2**53), ("plant-02", 0)]
    assert ask("GET", "/metrics")[0] == 200


def test_a_number_that_a_site_made_up_is_shown(hub: Hub, ask: Ask) -> None:
    hub.sites.register("plant-01", {}, False, "operator")
    beat = load(Heartbeat, b'{"at_us": %d, "epochs": []}' % 10**30)
    with hub.store.writing() as db:
        registry.heartbeat(db, "plant-01", beat)
    status, answer = ask("GET", "/api/v1/sites/plant-01")
    assert (status, answer["heartbeat"]["at_us"]) == (200, 10**30)
