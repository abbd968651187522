"""The hub as a process, spoken to as a site speaks. Held: sync/SPEC.md, section Journal sync."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from edge_sync.documents import Ack, EpochState, Heartbeat, Hello, Presence, Resume, Want, dump, load

EPOCH = "00000000000000aa"


def hello(site: Any, last: int) -> int:
    """Say hello for the one stream of these tests; returns where the hub is in it."""
    state = EpochState(epoch=EPOCH, order=1, last={"decision": last})
    site.say("hello", dump(Hello(sync="s1", epochs=[state])))
    return int(load(Resume, site.told("resume")).cursors[EPOCH]["decision"])


def ack(site: Any) -> Ack:
    return load(Ack, site.told("ack"))


def records(hub: Any, site: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query = f"/api/v1/sites/{site}/records?limit=400"
    while True:
        page = hub.api("GET", query + (f"&after={found[-1]['id']}" if found else ""))
        found += page["records"]
        if page["next"] is None:
            return found


def test_what_a_site_sends_is_what_the_hub_holds(hub: Any, play: Any, stream: Any) -> None:
    site, written = play("plant-01"), stream(EPOCH).grow(1000)
    assert hello(site, 1000) == 0
    site.say("journal", written.batch(1, 500))
    site.say("journal", written.batch(501, 1000))
    seq = 0
    while seq < 1000:
        seq = ack(site).seq
    held = records(hub, "plant-01")
    assert [row["seq"] for row in held] == list(range(1, 1001))
    assert [row["body"] for row in held] == [f'{{"n":{n}}}' for n in range(1, 1001)]
    assert hub.api("GET", f"/api/v1/sites/plant-01/records/{EPOCH}:decision:7")["hash"] == written.hashes[7].hex()
    assert hello(site, 1000) == 1000


def test_duplicates_holes_forks_and_noise(hub: Any, play: Any, stream: Any) -> None:
    site, written = play("plant-01"), stream(EPOCH).grow(30)
    site.say("journal", written.batch(1, 10))
    assert ack(site).seq == 10
    site.say("journal", written.batch(1, 10))
    assert (ack(site).seq, len(records(hub, "plant-01"))) == (10, 10)
    site.say("journal", written.batch(21, 30))
    assert (ack(site).seq, len(records(hub, "plant-01"))) == (10, 10)
    site.say("journal", b"EJ1 is no batch")
    site.say("journal", stream(EPOCH).grow(15, label="other").batch(1, 15))
    assert ack(site) == Ack(epoch=EPOCH, lane="decision", seq=10, fork=True)
    site.say("journal", written.batch(11, 30))
    assert ack(site).seq == 30
    shown = hub.api("GET", "/api/v1/sites/plant-01")
    assert (shown["records"], shown["lost"], shown["quarantined"]) == (30, 0, 2)


def test_a_batch_that_is_poison_stands_in_nobodys_way(hub: Any, play: Any, stream: Any) -> None:
    site, written = play("plant-01"), stream(EPOCH).grow(30)
    hurt = stream(EPOCH).grow(20, label="hurt")
    hurt.hashes = written.hashes  # as from a disk that turned a bit of a row, not of the hashes
    site.say("journal", written.batch(1, 10))
    assert ack(site).seq == 10
    site.say("journal", hurt.batch(11, 20))
    assert ack(site) == Ack(epoch=EPOCH, lane="decision", seq=20)
    site.say("journal", written.batch(21, 30))
    assert ack(site).seq == 30
    shown = hub.api("GET", "/api/v1/sites/plant-01")
    assert (shown["records"], shown["lost"], shown["quarantined"], shown["backlog"]) == (20, 10, 1, 0)
    (gap,) = hub.api("GET", "/api/v1/sites/plant-01/gaps")["gaps"]
    assert (gap["first"], gap["last"], gap["reason"]) == (11, 20, "quarantined")


def test_a_hub_restored_from_a_backup_tells_its_sites_where_it_is(
    hub: Any, play: Any, stream: Any, tmp_path: Path
) -> None:
    site, written = play("plant-01"), stream(EPOCH).grow(30)
    beat = dump(Heartbeat(at_us=1, epochs=[EpochState(epoch=EPOCH, order=1, last={"decision": 30})]))
    site.say("journal", written.batch(1, 10))
    assert ack(site).seq == 10
    hub.stop()
    shutil.copy(hub.folder / "hub.db", tmp_path / "backup.db")
    hub.start()
    site.say("journal", written.batch(11, 30))
    assert ack(site).seq == 30
    site.say("heartbeat", beat, retain=True)
    hub.stop()
    for each in hub.folder.glob("hub.db*"):
        each.unlink()
    shutil.copy(tmp_path / "backup.db", hub.folder / "hub.db")
    hub.start()  # the site's link to the broker never broke, and nothing of it is on its way
    site.everything().clear()
    site.say("heartbeat", beat, retain=True)
    assert ack(site) == Ack(epoch=EPOCH, lane="decision", seq=10)
    assert hello(site, 30) == 10


def test_wants_while_the_database_refuses_do_not_end_the_hubs_ear(hub: Any, play: Any, stream: Any, until: Any) -> None:
    site = play("plant-01")
    with closing(sqlite3.connect(hub.folder / "hub.db")) as db:
        db.execute("ALTER TABLE artifacts RENAME TO away")
        site.say("want", dump(Want(digest="sha256:" + "0" * 64, missing=[(0, 1)])))
        until(lambda: "wants_failed" in hub.log(), "the hub to fail at it")
        db.execute("ALTER TABLE away RENAME TO artifacts")
    site.say("journal", stream(EPOCH).grow(3).batch(1, 3))
    assert ack(site).seq == 3


def test_a_hub_that_is_killed_between_batches_loses_and_doubles_nothing(hub: Any, play: Any, stream: Any) -> None:
    site, written = play("plant-01"), stream(EPOCH).grow(3000)
    acked = hello(site, 3000)
    for kill_at in (600, 1500, 2400):
        while acked < kill_at:
            site.say("journal", written.batch(acked + 1, min(acked + 100, 3000)))
            acked = max(acked, ack(site).seq)
        site.say("journal", written.batch(acked + 1, acked + 100))  # on its way while the hub dies
        hub.kill()
        hub.start()
        site.everything().clear()
        resumed = hello(site, 3000)
        assert acked <= resumed <= acked + 100
        acked = resumed
    while acked < 3000:
        site.say("journal", written.batch(acked + 1, min(acked + 500, 3000)))
        acked = max(acked, ack(site).seq)
    assert [row["seq"] for row in records(hub, "plant-01")] == list(range(1, 3001))


def test_sites_are_kept_apart_and_their_state_is_shown(hub: Any, play: Any, stream: Any, until: Any) -> None:
    one, two = play("plant-01"), play("store-01")
    one.say("presence", dump(Presence(online=True, epoch=EPOCH, session=1)), retain=True)
    state = EpochState(epoch=EPOCH, order=1, last={"decision": 50})
    one.say("heartbeat", dump(Heartbeat(at_us=1, epochs=[state])), retain=True)
    one.say("journal", stream(EPOCH).grow(20).batch(1, 20))
    assert ack(one).seq == 20
    two.say("journal", stream(EPOCH, "alarm").grow(3).batch(1, 3))
    assert ack(two).seq == 3

    def shown() -> Any:
        return {each["site"]: each for each in hub.api("GET", "/api/v1/sites")["sites"]}

    until(lambda: shown()["plant-01"]["online"], "plant-01 to be online")
    seen = shown()
    assert (seen["plant-01"]["records"], seen["plant-01"]["backlog"]) == (20, 30)
    assert (seen["store-01"]["records"], seen["store-01"]["online"]) == (3, False)
    assert not [message for message in two.everything() if "plant-01" in message.topic]
    hub.kill()
    hub.start()  # the broker still has what the site said, retained
    until(lambda: shown()["plant-01"]["online"], "plant-01 to be online again")


def test_a_link_that_breaks_is_seen(hub: Any, play: Any, until: Any) -> None:
    site = play("plant-01")
    site.say("presence", dump(Presence(online=True, epoch=EPOCH, session=5)), retain=True)
    until(lambda: hub.api("GET", "/api/v1/sites/plant-01")["online"], "the site to be online")
    site.say("presence", dump(Presence(online=False, epoch=EPOCH, session=5)), retain=True)
    until(lambda: not hub.api("GET", "/api/v1/sites/plant-01")["online"], "the site to be offline")
