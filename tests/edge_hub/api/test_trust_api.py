"""`/api/v1/trust` over real HTTP: what an operator hands over, and what is refused."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from operator_desk import Operator

from edge_hub.delivery.trust import packed_set
from edge_hub.hub import Hub
from edge_hub.records import audit
from edge_sync.signing import make_key, public_key
from edge_sync.trust.client import Trusted
from edge_sync.trust.paths import MAX_FILES, MAX_SET_BYTES

Ask = Callable[..., tuple[int, Any]]
TRUST, MEDIA = "/api/v1/trust", "/api/v1/trust/media"
FIRST = {"root": 1, "targets": 1, "models": 1, "policies": 1, "agents": 1, "snapshot": 1, "timestamp": 1}


@pytest.fixture
def operator(hub: Hub, tmp_path: Path) -> Operator:
    """Of this hub, which knows nothing of them yet."""
    return Operator(tmp_path / "trust", hub.trust.online_key, hub.director_key)


def published(hub: Hub) -> bytes | None:
    with hub.store.reading() as db:
        assert audit.verify(db) is None
        return packed_set(db)


def test_all_of_it_needs_the_token(ask: Ask, hub: Hub, operator: Operator) -> None:
    for method, path, body in (
        ("GET", TRUST, None),
        ("PUT", TRUST, {"files": operator.texts}),
        ("POST", MEDIA, {"valid_days": 9}),
    ):
        for token in (None, "wrong"):
            status, answer = ask(method, path, body, token=token)
            assert (status, "operator's token" in answer["error"]) == (401, True)
    assert published(hub) is None


def test_the_keys_are_there_before_anything_is_handed_over(ask: Ask, hub: Hub) -> None:
    keys = {"online_key": public_key(hub.folder.online_key), "director_key": hub.director_key}
    assert ask("GET", TRUST) == (200, keys | {"versions": {}, "root": None})
    status, answer = ask("POST", MEDIA, {"valid_days": 9})
    assert (status, "holds no trust metadata" in answer["error"]) == (404, True)


def test_what_is_handed_over_is_shown_and_published(ask: Ask, hub: Hub, operator: Operator, tmp_path: Path) -> None:
    for _ in range(2):
        assert ask("PUT", TRUST, {"files": operator.texts}) == (200, {"versions": FIRST})
    status, shown = ask("GET", TRUST)
    assert (status, shown["versions"], shown["root"].encode()) == (200, FIRST, operator.root)
    site = Trusted(tmp_path / "site", shown["root"].encode(), lambda: time.time_ns() // 1000)
    packed = published(hub)
    assert packed is not None
    site.take(packed)
    assert site.directors == {shown["director_key"]}


def test_a_stick_is_bytes_that_a_site_takes(ask: Ask, hub: Hub, operator: Operator, tmp_path: Path) -> None:
    ask("PUT", TRUST, {"files": operator.texts})
    status, stick = ask("POST", MEDIA, {"valid_days": 30})
    assert (status, type(stick)) == (200, bytes)
    day_30 = time.time_ns() // 1000 + 29 * 86_400_000_000
    site = Trusted(tmp_path / "site", operator.root, lambda: day_30)
    trust = site.take(stick)
    assert trust is not None
    assert trust.versions == FIRST | {"snapshot": 2, "timestamp": 2}
    assert ask("GET", TRUST)[1]["versions"] == FIRST | {"snapshot": 3, "timestamp": 3}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "files: Field required"),
        ({"files": {}}, "it holds no 1.root.json"),
        ({"files": []}, "files: Input should be"),
        ({"files": {"1.root.json": None}}, "files.1.root.json: Input should be a valid string"),
        ({"files": {"1.root.json": "{}"}, "more": 1}, "more: Extra inputs"),
        ({"files": {"1.root.json": "{}"}}, "trust metadata: "),
        ({"files": {"1.root.json": "\N{SNOWMAN}"}}, "trust metadata: "),
        ({"files": {"../root.json": "{}"}}, "is no name of it"),
        ({"files": {f"{n}.root.json": "{}" for n in range(1, MAX_FILES + 2)}}, f"the most is {MAX_FILES}"),
        (b'{"files": {"1.root.json": "\\ud800"}}', "body: Invalid JSON"),
        (b"\xff", "body: Invalid JSON"),
        (b"", "body: Invalid JSON"),
    ],
)
def test_what_is_no_metadata_is_refused_and_named(ask: Ask, hub: Hub, body: Any, says: str) -> None:
    status, answer = ask("PUT", TRUST, body)
    assert (status, says in answer["error"]) == (400, True), answer
    assert published(hub) is None


def test_what_sites_would_not_follow_is_refused(ask: Ask, hub: Hub, operator: Operator, tmp_path: Path) -> None:
    make_key(tmp_path / "other.key")
    other = public_key(tmp_path / "other.key")
    for name, keys, says in (
        ("a", (other, hub.director_key), "another snapshot key than this hub's"),
        ("b", (hub.trust.online_key, other), "do not name this hub's director key"),
    ):
        status, answer = ask("PUT", TRUST, {"files": Operator(tmp_path / name, *keys).texts})
        assert (status, says in answer["error"]) == (400, True)
    assert ask("PUT", TRUST, {"files": operator.texts})[0] == 200
    before = published(hub)
    another = Operator(tmp_path / "c", hub.trust.online_key, hub.director_key)
    status, answer = ask("PUT", TRUST, {"files": another.texts})
    assert (status, "is it of another operator?" in answer["error"]) == (400, True)
    assert published(hub) == before


def test_a_set_may_be_larger_than_other_bodies_and_is_limited_too(ask: Ask, hub: Hub, operator: Operator) -> None:
    padded = {name: text + " " * 1_000_000 for name, text in operator.texts.items()}
    assert ask("PUT", TRUST, {"files": padded})[0] == 200
    limit = 2 * MAX_SET_BYTES
    status, answer = ask("PUT", TRUST, b" " * (limit + 1))
    assert (status, answer) == (413, {"error": f"the body is over {limit} bytes"})
    status, answer = ask("PUT", TRUST, {"files": {"1.root.json": " " * 5_000_000}})
    assert (status, "the most is 4194304" in answer["error"]) == (400, True)
    assert ask("POST", MEDIA, b" " * 600_000)[0] == 413


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "valid_days: Field required"),
        ({"valid_days": 0}, "valid_days: Input should be greater"),
        ({"valid_days": 366}, "valid_days: Input should be less"),
        ({"valid_days": 1.5}, "valid_days: "),
        ({"valid_days": 9, "site": "plant-01"}, "site: Extra inputs"),
    ],
)
def test_a_stick_that_is_asked_for_wrongly(ask: Ask, operator: Operator, body: Any, says: str) -> None:
    ask("PUT", TRUST, {"files": operator.texts})
    status, answer = ask("POST", MEDIA, body)
    assert (status, says in answer["error"]) == (400, True)
    assert ask("GET", TRUST)[1]["versions"] == FIRST


def test_other_methods_are_none(ask: Ask) -> None:
    for method, path in (("DELETE", TRUST), ("POST", TRUST), ("GET", MEDIA)):
        assert ask(method, path)[0] == 405
