"""Answers about the journal, forged by whoever owns the broker: a site that believed them would keep back its records.

Holds promise 2 against a stolen broker. Made twice: against a site as it is, and against one without the check.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from attacker import Ground, Victim, wait_until
from plain_client import Client

from edge_sync.answers import MAGIC, Answers
from edge_sync.documents import Hello, Resume, dump, load
from edge_sync.signing import make_key
from edge_sync.topics import down


@pytest.fixture(scope="module")
def ground(grounds: Any, kind: Any) -> Ground:
    """One fleet for the tests here."""
    made: Ground = grounds(kind)
    return made


def all_is_here(ground: Ground, victim: Victim) -> Resume:
    """The answer to the site's newest hello that says: nothing is lacking."""
    password = ground.users.add_user("_hub-67", "hub", replace=True)
    ear = Client(ground.broker.port, "_hub-67", password)
    ear.subscribe(f"edge/v1/{victim.name}/up/hello")
    heard: list[tuple[str, bytes]] = wait_until(ear.all, "a hello")
    ear.close()
    hello = load(Hello, heard[-1][1])
    return Resume(sync=hello.sync, cursors={epoch.epoch: epoch.last for epoch in hello.epochs})


def cursors(victim: Victim) -> int:
    """Records that the site believes its hub to hold."""
    return int(victim.rows("SELECT coalesce(sum(acked), 0) FROM cursors")[0][0])


def sealed_by(key: Path, topic: str, document: bytes) -> bytes:
    return Answers(key).seal(topic, document)


@pytest.mark.parametrize("how", ["nobody's signature", "a key of its own", "an answer to another site"])
def test_a_forged_answer_moves_no_cursor_and_is_recorded(ground: Ground, tmp_path: Path, how: str) -> None:
    victim = ground.victim("plant-" + how.replace("'", "").replace(" ", "-"))
    ground.tell_trust(victim)
    resume, topic = dump(all_is_here(ground, victim)), down(victim.name, "resume")
    if how == "nobody's signature":
        forged = MAGIC + bytes(64) + resume
    elif how == "a key of its own":
        make_key(tmp_path / "own.key")
        forged = sealed_by(tmp_path / "own.key", topic, resume)
    else:
        forged = sealed_by(ground.desk.director, down("plant-99", "resume"), resume)
    ground.say(topic, forged, retain=False)

    def recorded() -> list[Any]:
        return victim.rows("SELECT body FROM journal WHERE label='answer_refused'")

    wait_until(recorded, victim.said)
    assert "not signed by a director" in json.loads(recorded()[0][0])["reason"]
    assert cursors(victim) == 0
    genuine = sealed_by(ground.desk.director, topic, dump(all_is_here(ground, victim)))
    ground.say(topic, genuine, retain=False)
    wait_until(lambda: cursors(victim), victim.said)
    victim.end()


def test_without_the_check_it_believes_that_all_is_delivered(ground: Ground) -> None:
    victim = ground.victim("plant-weak", "answer-signature")
    ground.tell_trust(victim)
    resume = dump(all_is_here(ground, victim))
    ground.say(down(victim.name, "resume"), MAGIC + bytes(64) + resume, retain=False)
    wait_until(lambda: cursors(victim), victim.said)
    victim.end()
