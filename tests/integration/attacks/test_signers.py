"""Trust metadata that the wrong keys signed: each key counts for what the root says, and for nothing else.

Holds promise 7. Each attack ends in a desired document of a director: only the metadata stand in its way.
"""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from attacker import Attack, Ground, Made, Victim
from operator_desk import Desk, targets
from tuf.api.metadata import Metadata, MetaFile, TargetFile

from edge_hub.delivery.trust import Trust
from edge_models.shipped import shipped_path
from edge_sync.signing import file_signer, make_key
from edge_sync.trust.collection import pack, unpack
from edge_sync.trust.paths import KINDS

numbers = count(2)
"""Of releases and generations: each is higher than those before."""


def own_timestamp(ground: Ground, victim: Victim) -> Made:
    """A later timestamp, signed by a key of the attacker's own."""
    ground.tell_trust(victim)
    wanted = ground.signed(next(numbers))
    ground.trust(_online(ground, unpack(ground.desk.packed()), _own_key(ground)))
    _ask(ground, victim, wanted)
    return wanted


def online_key_signs_models(ground: Ground, victim: Victim) -> Made:
    """All the keys that a hub has: what they sign says that they may sign models, too."""
    wanted = ground.make(next(numbers), shipped_path("trace", "2"))
    ground.serve(wanted)
    ground.trust(_online(ground, _with_targets(ground, wanted, ground.desk.online), ground.desk.online))
    _ask(ground, victim, wanted)
    return wanted


def former_online_key(ground: Ground, victim: Victim) -> Made:
    """The online key was stolen and replaced; who stole it goes on signing with it."""
    former, new = ground.desk.online, ground.folder / f"online-{next(numbers)}.key"
    public = make_key(new)
    repository, director = ground.desk.operator.repository, ground.desk.trust.director
    repository.rotate("online", lambda _: None, public=public)
    store, now_us = ground.desk.trust._store, ground.desk.trust._now_us
    ground.desk.trust, ground.desk.online = Trust(store, new, director, lambda: None, now_us), new
    ground.desk.hand_over()
    ground.tell_trust(victim)
    wanted = ground.signed(next(numbers))
    files = unpack(ground.desk.packed())
    del files["2.root.json"]
    ground.trust(_online(ground, files, former))
    _ask(ground, victim, wanted)
    return wanted


def policies_key_signs_a_model(ground: Ground, victim: Victim) -> Made:
    """One of the operator's keys was stolen: the one for policies names a model, and all else that it needs."""
    wanted = ground.make(next(numbers), shipped_path("trace", "2"))
    ground.serve(wanted)
    repository = ground.desk.operator.repository
    sizes = {str(digest): len(data) for digest, data in wanted.blobs.items()}
    held = Metadata[Any].from_bytes(unpack(ground.desk.packed())[_name(ground, "policies")])
    for target in targets(wanted.release, sizes):
        if target.kind == "agents":
            repository.add([target], lambda _: None)
        else:
            file = TargetFile(target.size_bytes, {"sha256": target.digest.removeprefix("sha256:")}, target.path)
            held.signed.targets[target.path] = file
    ground.desk.hand_over()
    files = unpack(ground.desk.packed())
    held.signed.version += 1
    held.sign(file_signer(_key(ground.desk, "policies-1")))
    del files[_name(ground, "policies")]
    files[f"{held.signed.version}.policies.json"] = held.to_bytes()
    ground.trust(_online(ground, files, ground.desk.online))
    _ask(ground, victim, wanted)
    return wanted


def own_root(ground: Ground, victim: Victim) -> Made:
    """A new root that only the attacker has signed, and with it a director and an operator of their own."""
    return _take_over(ground, victim)


def one_stolen_root_key(ground: Ground, victim: Victim) -> Made:
    """The same, signed by one of the operator's three root keys, too."""
    return _take_over(ground, victim, _key(ground.desk, "root-1"))


ATTACKS = [
    Attack(own_timestamp, "timestamp was signed by 0/1 keys", ("online-signature",), 2),
    Attack(online_key_signs_models, "models was signed by 0/1 keys", ("targets-signature",), 2),
    Attack(former_online_key, "timestamp was signed by 0/1 keys", ("online-signature",), 2),
    Attack(policies_key_signs_a_model, "is not signed by the operator", ("delegated-paths",)),
    Attack(own_root, "root was signed by 0/2 keys", ("root-signature",), 2),
    Attack(one_stolen_root_key, "root was signed by 1/2 keys", ("root-threshold",), 2),
]
each = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


@each
def test_a_site_refuses_it_and_says_so(kind: Any, new_ground: Callable[..., Ground], attack: Attack) -> None:
    ground = new_ground(kind)
    attack.is_refused(ground, ground.victim("plant-01"))


@each
def test_without_the_checks_it_would_succeed(new_ground: Callable[..., Ground], attack: Attack) -> None:
    attack.succeeds(new_ground())


def test_a_site_follows_the_roots_that_it_slept_through(kind: Any, new_ground: Callable[..., Ground]) -> None:
    ground = new_ground(kind)
    victim = ground.victim("plant-01")
    ground.tell_trust(victim)
    victim.end()
    for _ in range(5):
        ground.desk.operator.repository.rotate("root", lambda _: None)
    wanted = ground.signed(2)
    victim.start()
    ground.tell_trust(victim)
    assert victim.versions()["root"] == 6
    ground.desired("plant-01", wanted.envelope("plant-01", 1, ground.desk.director))
    victim.installs(2)


def _ask(ground: Ground, victim: Victim, wanted: Made, key: Path | None = None) -> None:
    ground.desired(victim.name, wanted.envelope(victim.name, next(numbers), key or ground.desk.director))


def _name(ground: Ground, role: str) -> str:
    return next(name for name in unpack(ground.desk.packed()) if name.endswith(f".{role}.json"))


def _key(desk: Desk, name: str) -> Path:
    return desk.operator.repository.folder / "keys" / f"{name}.pem"


def _own_key(ground: Ground) -> Path:
    key = ground.folder / f"own-{next(numbers)}.key"
    make_key(key)
    return key


def _online(ground: Ground, files: dict[str, bytes], key: Path) -> bytes:
    """These files under a new snapshot and timestamp, signed by this key."""
    roles = {name.split(".")[1]: name for name in files if name.split(".")[1] in ("targets", *KINDS)}
    snapshot = Metadata[Any].from_bytes(files[_name(ground, "snapshot")])
    timestamp = Metadata[Any].from_bytes(files["timestamp.json"])
    for role, name in roles.items():
        snapshot.signed.meta[f"{role}.json"] = MetaFile(int(name.split(".")[0]))
    version = snapshot.signed.version = timestamp.signed.version = timestamp.signed.version + 1
    snapshot.sign(file_signer(key))
    timestamp.signed.snapshot_meta = MetaFile(version)
    timestamp.sign(file_signer(key))
    return pack(files | {f"{version}.snapshot.json": snapshot.to_bytes(), "timestamp.json": timestamp.to_bytes()})


def _with_targets(ground: Ground, wanted: Made, key: Path) -> dict[str, bytes]:
    """The genuine files, but each role names what this release needs, and this key signed that."""
    files = unpack(ground.desk.packed())
    sizes = {str(digest): len(data) for digest, data in wanted.blobs.items()}
    for role in KINDS:
        held = Metadata[Any].from_bytes(files.pop(_name(ground, role)))
        for target in targets(wanted.release, sizes):
            if target.kind == role:
                file = TargetFile(target.size_bytes, {"sha256": target.digest.removeprefix("sha256:")}, target.path)
                held.signed.targets[target.path] = file
        held.signed.version += 1
        held.sign(file_signer(key))
        files[f"{held.signed.version}.{role}.json"] = held.to_bytes()
    return files


def _take_over(ground: Ground, victim: Victim, *stolen: Path) -> Made:
    """A whole fleet of the attacker's own, whose root claims to follow the genuine one."""
    ground.tell_trust(victim)
    own = Desk(ground.folder / f"own-{next(numbers)}")
    wanted = ground.make(next(numbers), shipped_path("trace", "2"))
    ground.serve(wanted)
    files = unpack(own.sign(wanted.release, wanted.blobs))
    root = Metadata[Any].from_bytes(files.pop("1.root.json"))
    root.signed.version = ground.versions()["root"] + 1
    root.signatures.clear()
    for key in (_key(own, "root-1"), _key(own, "root-2"), *stolen):
        root.sign(file_signer(key), append=True)
    ground.trust(pack(files | {f"{root.signed.version}.root.json": root.to_bytes()}))
    _ask(ground, victim, wanted, own.director)
    own.close()
    return wanted
