"""What sites know, from the records they deliver. Held: sync/SPEC.md, section Facts."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from edge_hub.database.schema import epochs, facts, sites
from edge_hub.database.store import Store, UnknownError
from edge_hub.facts.site_facts import MAX_SITE_KEYS, SiteFacts, known, note, read_fact
from edge_hub.ingest.journal import Arrived, store_batches
from edge_sync.batch import decode
from edge_sync.rows import Row

NOW = 1_800_000_000_000_000
OLD, NEW = "00000000000000aa", "00000000000000bb"


def row(seq: int, body: str, kind: str = "fact") -> Row:
    return Row(seq, 1, kind, "press", None, None, None, None, body)


def says(key: str, value: Any, **more: Any) -> str:
    return json.dumps({"key": key, "value": value, **more})


@pytest.fixture
def hub(store: Store) -> Store:
    """A hub that knows p1 and p2; of p1, it heard of OLD before NEW, which that site numbers the other way round."""
    with store.writing() as db:
        for site in ("p1", "p2"):
            db.execute(sites.insert().values(site=site, labels={}, created_us=1, online=False))
        for epoch, order, since_us in ((OLD, 9, 100), (NEW, 2, 200)):
            db.execute(epochs.insert().values(site="p1", epoch=epoch, ord=order, since_us=since_us, held=True))
    return store


def hear(hub: Store, epoch: str, *rows: Row, site: str = "p1", now_us: int = NOW) -> None:
    with hub.writing() as db:
        note(db, now_us, (site, epoch, "decision"), rows)


def values(hub: Store, site: str = "p1") -> dict[str, Any]:
    return {each["key"]: each["value"] for each in SiteFacts(hub, lambda: NOW).of(site)}


def test_the_newest_of_each_key_is_kept_in_the_transaction_of_its_record(hub: Store, stream: Any) -> None:
    written = stream(OLD)
    for value in (1, 2, 3):
        written.grow(1, kind="fact", body=says("mode", value))
    with hub.writing() as db:
        for message in (written.batch(1, 2), written.batch(1, 2), written.batch(2, 3)):
            store_batches(db, [Arrived("p1", decode(message), message)], NOW)
    [known_fact] = SiteFacts(hub, lambda: NOW).of("p1")
    assert known_fact == {"key": "mode", "value": 3, "expires_at_us": None, "origin": f"{OLD}:decision:3"}
    assert values(hub, "p2") == {}


def test_a_record_of_an_older_epoch_that_comes_late_replaces_nothing(hub: Store) -> None:
    hear(hub, NEW, row(1, says("mode", "new")))
    hear(hub, OLD, row(50, says("mode", "old")), row(51, says("other", "old")))
    assert values(hub) == {"mode": "new", "other": "old"}
    hear(hub, NEW, row(2, says("mode", "newer")))
    hear(hub, NEW, row(1, says("mode", "new")))
    assert values(hub) == {"mode": "newer", "other": "old"}


def test_of_epochs_first_heard_of_together_the_sites_order_decides(hub: Store) -> None:
    with hub.writing() as db:
        db.execute(epochs.update().values(since_us=100))
    hear(hub, NEW, row(7, says("mode", "order 2")))
    hear(hub, OLD, row(1, says("mode", "order 9")))
    hear(hub, NEW, row(8, says("mode", "order 2 again")))
    assert values(hub) == {"mode": "order 9"}


def test_an_epoch_that_was_not_told_of_yet_counts_since_now(hub: Store) -> None:
    hear(hub, "00000000000000cc", row(1, says("mode", "unheard of")))
    hear(hub, NEW, row(9, says("mode", "known before")))
    assert values(hub) == {"mode": "unheard of"}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations([(epoch, seq) for epoch in (OLD, NEW) for seq in (1, 2, 3)]))
def test_the_order_of_arrival_does_not_matter(hub: Store, order: list[tuple[str, int]]) -> None:
    with hub.writing() as db:
        db.execute(facts.delete())
    for epoch, seq in [*order, *order[:3]]:
        hear(hub, epoch, row(seq, says("mode", [epoch, seq])))
    assert values(hub) == {"mode": [NEW, 3]}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "3",
        "null",
        "{",
        '{"key":"k"}',
        '{"value":1}',
        '{"key":7,"value":1}',
        '{"key":"","value":1}',
        '{"key":null,"value":1}',
        '{"key":["k"],"value":1}',
        '{"key":"' + "k" * 201 + '","value":1}',
        '{"key":"a\\u0000b","value":1}',
        '{"key":"\\ud800","value":1}',
        '{"key":"k","value":1,"expires_at":"soon"}',
        '{"key":"k","value":1,"expires_at":true}',
        '{"key":"k","value":1,"expires_at":-1}',
        '{"key":"k","value":1,"expires_at":9223372036854775808}',
        '{"key":"k","value":' + "[" * 30_000 + "]" * 30_000 + "}",
        '{"key":"k","value":' + "9" * 5_000 + "}",
        '{"key":"k","value":[18446744073709551616]}',
        '{"key":"k","value":[NaN]}',
        '{"key":"k","value":1e400}',
        '{"key":"k","value":["\\ud800"]}',
        '{"key":"k","value":' + "[" * 33 + "]" * 33 + "}",
        '{"too_large_bytes":70000,"keys":["key","value"]}',
    ],
)
def test_a_malformed_fact_is_no_fact(hub: Store, body: str) -> None:
    assert read_fact(row(1, body)) is None
    hear(hub, NEW, row(1, body), row(2, says("good", 1)))
    assert values(hub) == {"good": 1}


def test_any_json_is_a_value(hub: Store) -> None:
    hear(hub, NEW, row(1, '{"key":"k","value":{"a":[null,1.5,"\\u0000\u20ac",true]},"extra":1}'))
    assert values(hub) == {"k": {"a": [None, 1.5, "\0€", True]}}
    hear(hub, NEW, row(2, says("k", None)))
    assert values(hub) == {"k": None}


def test_only_facts_are_facts(hub: Store) -> None:
    hear(hub, NEW, row(1, says("k", 1), kind="event"))
    assert values(hub) == {}


def test_what_has_expired_is_not_told(hub: Store) -> None:
    hear(hub, NEW, row(1, says("gone", 1, expires_at=NOW)), row(2, says("here", 1, expires_at=NOW + 1)))
    assert values(hub) == {"here": 1}


def test_keys_of_a_site_are_bounded_what_has_expired_goes_first(hub: Store) -> None:
    hear(hub, OLD, row(1, says("set long ago", 1)), row(2, says("expired", 1, expires_at=5)))
    hear(hub, NEW, *(row(n, says(f"k{n}", n)) for n in range(1, MAX_SITE_KEYS)))
    assert len(values(hub)) == MAX_SITE_KEYS
    hear(hub, NEW, row(MAX_SITE_KEYS, says("one more", 1)))
    with hub.reading() as db:
        assert len(db.execute(select(facts)).all()) == MAX_SITE_KEYS
        newest = known(db, "p1", NOW)
    assert newest[0].key == "one more"
    assert "set long ago" not in {each.key for each in newest}


def test_a_site_nobody_registered_is_unknown(hub: Store) -> None:
    with pytest.raises(UnknownError, match="no site 'p9'"):
        SiteFacts(hub, lambda: NOW).of("p9")
