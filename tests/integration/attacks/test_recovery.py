"""After a theft: keys that were stolen can stop a site's updates, but only until the operator has taken them back.

Holds promise 7. The thief has done the most that the keys allow before they are replaced.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from attacker import Ground
from tuf.api.metadata import Metadata, MetaFile

from edge_hub.delivery.trust import Trust
from edge_sync.signing import file_signer, make_key
from edge_sync.trust.collection import pack, unpack

HIGHEST = 2**53 - 1
"""Of any number on the wire."""


def replace_keys(ground: Ground) -> None:
    """The operator gives the hub a new online and a new director key, and takes the old ones back."""
    desk = ground.desk
    desk.online, desk.director = ground.folder / "new-online.key", ground.folder / "new-director.key"
    online, director = make_key(desk.online), make_key(desk.director)
    desk.operator.repository.rotate("online", lambda _: None, public=online)
    desk.operator.repository.rotate("director", lambda _: None, public=director)
    desk.trust = Trust(desk._store, desk.online, director, lambda: None, desk.trust._now_us)
    desk.hand_over()


def test_the_highest_versions_are_forgotten_with_the_online_key(new_ground: Callable[..., Ground]) -> None:
    ground = new_ground()
    victim = ground.victim("plant-01")
    ground.tell_trust(victim)
    files = unpack(ground.desk.packed())
    held = next(name for name in files if "snapshot" in name)
    snapshot, timestamp = (Metadata[Any].from_bytes(files[name]) for name in (held, "timestamp.json"))
    snapshot.signed.version = timestamp.signed.version = HIGHEST
    timestamp.signed.snapshot_meta = MetaFile(HIGHEST)
    for each in (snapshot, timestamp):
        each.sign(file_signer(ground.desk.online))
    ground.trust(
        pack(files | {f"{HIGHEST}.snapshot.json": snapshot.to_bytes(), "timestamp.json": timestamp.to_bytes()})
    )
    victim.trusts({"timestamp": HIGHEST, "snapshot": HIGHEST})
    ground.signed(2)
    with victim.refusing("New timestamp version"):
        ground.genuine_trust()
    replace_keys(ground)
    wanted = ground.signed(3)
    ground.tell_trust(victim)
    ground.desired("plant-01", wanted.envelope("plant-01", 1, ground.desk.director))
    victim.installs(3)


def test_a_time_far_ahead_stops_updates_only_until_longer_signatures_come(new_ground: Callable[..., Ground]) -> None:
    ground = new_ground()
    victim = ground.victim("plant-01")
    chosen = ground.signed(2)
    ground.tell_trust(victim)
    ahead = round((datetime.now(UTC) + timedelta(days=3650)).timestamp() * 1e6)
    ground.desired("plant-01", chosen.envelope("plant-01", 1, ground.desk.director, issued_us=ahead))
    victim.installs(2)
    replace_keys(ground)
    wanted = ground.signed(3)
    with victim.refusing("expired"):
        ground.genuine_trust()
    ground.trust(ground.desk.trust.media(365, "operator"))
    ground.desired("plant-01", wanted.envelope("plant-01", 2, ground.desk.director))
    victim.installs(3)


def test_the_highest_generation_does_not_stop_updates_for_good(new_ground: Callable[..., Ground]) -> None:
    """Whatever a site does of such a document: once the director's key is replaced, the new one is heard."""
    ground = new_ground()
    victim = ground.victim("plant-01")
    chosen = ground.signed(2)
    ground.tell_trust(victim)
    ground.desired("plant-01", chosen.envelope("plant-01", HIGHEST, ground.desk.director))
    victim.goes_on()
    replace_keys(ground)
    wanted = ground.signed(3)
    ground.tell_trust(victim)
    ran = victim.runs()[1]
    generation = ran + 1 if ran < 2**52 else 1  # as a hub counts: it believes no site that says more
    ground.desired("plant-01", wanted.envelope("plant-01", generation, ground.desk.director))
    victim.installs(3)
