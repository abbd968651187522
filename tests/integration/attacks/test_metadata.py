"""Trust metadata, kept back, replayed and mixed: what a site knows never goes back, and its parts belong together.

Holds promise 7. Each attack ends in a desired document that the director did sign: only the metadata stand in its way.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from attacker import Attack, Ground, Made, Victim, wait_until
from operator_desk import Desk
from tuf.api.metadata import Metadata

from edge_sync.trust.collection import pack, unpack

numbers = count(2)
"""Of releases and generations: each is higher than those before."""


def older_set(ground: Ground, victim: Victim) -> Made:
    """The operator has taken a release back; the metadata from before come again, whole."""
    wanted, older = _taken_back(ground, victim)
    ground.tell_trust(victim)
    ground.trust(older)
    _ask(ground, victim, wanted)
    return wanted


def older_role_in_a_newer_set(ground: Ground, victim: Victim) -> Made:
    """The same, with only the role's file from before, under the name of the new one."""
    wanted, older = _taken_back(ground, victim)
    files, before = unpack(ground.desk.packed()), unpack(older)
    [new], [old] = ([name for name in each if name.endswith(".agents.json")] for each in (files, before))
    ground.trust(pack(files | {new: before[old]}))
    _ask(ground, victim, wanted)
    return wanted


def newer_timestamp_on_an_older_set(ground: Ground, victim: Victim) -> Made:
    """The same, with the new timestamp alone, on all that it was before."""
    wanted, older = _taken_back(ground, victim)
    files, before = unpack(ground.desk.packed()), unpack(older)
    new, old = (next(name for name in each if "snapshot" in name) for each in (files, before))
    ground.trust(pack(before | {"timestamp.json": files["timestamp.json"], new: before[old]}))
    _ask(ground, victim, wanted)
    return wanted


ROLLBACK = "New timestamp version"
OTHER_BYTES = "does not match expected"
ATTACKS = [
    Attack(older_set, ROLLBACK, ("older-timestamp", "older-snapshot"), 2),
    Attack(older_role_in_a_newer_set, OTHER_BYTES, ("metadata-hash", "metadata-version"), 2),
    Attack(newer_timestamp_on_an_older_set, OTHER_BYTES, ("metadata-hash", "snapshot-version"), 2),
]
each = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


@each
def test_a_site_refuses_it_and_says_so(kind: Any, new_ground: Callable[..., Ground], attack: Attack) -> None:
    ground = new_ground(kind)
    attack.is_refused(ground, ground.victim("plant-01"))


@each
def test_without_the_checks_it_would_succeed(new_ground: Callable[..., Ground], attack: Attack) -> None:
    attack.succeeds(new_ground())


@pytest.mark.parametrize(
    ("attack", "without", "reason"),
    [
        (older_set, "older-timestamp", "Expected agents.json version"),
        (older_role_in_a_newer_set, "metadata-hash", "Expected agents v"),
        (newer_timestamp_on_an_older_set, "metadata-hash", "Expected snapshot version"),
    ],
)
def test_behind_one_check_stands_another(
    new_ground: Callable[..., Ground], attack: Callable[[Ground, Victim], Made], without: str, reason: str
) -> None:
    ground = new_ground()
    victim = ground.victim("plant-01", without)
    with victim.refusing(reason, 2):
        attack(ground, victim)
    assert victim.runs() == (1, 0)


@pytest.mark.parametrize("weak", [(), ("expiry",)])
def test_a_site_that_is_kept_from_news_takes_nothing_once_the_timestamp_has_ended(
    new_ground: Callable[..., Ground], tmp_path: Path, weak: tuple[str, ...]
) -> None:
    behind = timedelta(days=7) - timedelta(seconds=10)
    clock = [behind]
    ground = new_ground(desk=Desk(tmp_path / "desk", lambda: datetime.now(UTC) - clock[0]))
    victim = ground.victim("plant-01", *weak)
    wanted = ground.signed(2)
    ground.tell_trust(victim)
    ends = Metadata[Any].from_bytes(unpack(ground.desk.packed())["timestamp.json"]).signed.expires
    wait_until(lambda: datetime.now(UTC) > ends, "the timestamp to end")
    envelope = wanted.envelope("plant-01", 1, ground.desk.director)
    if weak:
        ground.desired("plant-01", envelope)
        victim.installs(2)
        return
    with victim.refusing("expired: nothing new is accepted"):
        ground.desired("plant-01", envelope)
    assert victim.runs() == (1, 0)
    victim.goes_on()
    clock[0] = timedelta()
    assert ground.desk.trust.renew()
    ground.genuine_trust()
    victim.installs(2)


def _taken_back(ground: Ground, victim: Victim) -> tuple[Made, bytes]:
    """A release that was signed when the site last heard, and is no more; the metadata of then."""
    wanted = ground.signed(next(numbers))
    older = ground.desk.packed()
    ground.tell_trust(victim)
    digest = wanted.release.document_digest.removeprefix("sha256:")
    ground.desk.operator.repository.withdraw(f"agents/{digest}", lambda _: None)
    for _ in range(2):  # so that the role's file has grown: what is older must not be refused for its length
        ground.signed(next(numbers))
    return wanted, older


def _ask(ground: Ground, victim: Victim, wanted: Made) -> None:
    ground.desired(victim.name, wanted.envelope(victim.name, next(numbers), ground.desk.director))
