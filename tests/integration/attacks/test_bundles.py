"""Bundles that lie, which the operator signed unawares: a file that is not what it says of itself never runs.

Holds promise 7 against who makes models. Each forgery is a whole model beside the lie: without the check it runs.
"""

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from attacker import Attack, Ground, Made, Victim

from edge_models import layout, ustar
from edge_models.layout import DOC, Layer
from edge_models.shipped import shipped_path

numbers = count(2)
"""Of releases and generations: each is higher than those before."""


def parts() -> dict[str, bytes]:
    """The entries of an honest bundle."""
    return {name: bytes(data) for name, data in ustar.unpack(shipped_path("trace", "2").read_bytes()).items()}


def other_card() -> bytes:
    """The manifest names a card, and another lies there."""
    members = parts()
    name = next(name for name, data in members.items() if data.startswith(b'{"about":"Four times'))
    return ustar.pack(members | {name: members[name].replace(b"Four times", b"Nine times", 1)})


def added(name: str) -> Callable[[], bytes]:
    """One more file, under this name."""

    def build() -> bytes:
        return ustar.pack(parts() | {name: b"escaped"})

    return build


def entry(kind: bytes, name: str = "zz", target: str = "") -> Callable[[], bytes]:
    """One more entry that is no file."""

    def build() -> bytes:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        block = member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
        whole = shipped_path("trace", "2").read_bytes()
        return whole[: -len(ustar.END)] + block + ustar.END

    return build


@dataclass(frozen=True, slots=True)
class Forgery:
    """A bundle, why a site refuses it, and which checks do so."""

    name: str
    build: Callable[[], bytes]
    reason: str
    weak: tuple[str, ...]


UNNAMED, UNPLAIN = "the manifest does not name it", "not the plain ustar header"
HEADERS = ("bundle-headers", "bundle-members")
FORGERIES = [
    Forgery("other-card", other_card, "its bytes are not those of", ("bundle-manifest",)),
    Forgery("up", added("../../escaped"), UNNAMED, ("bundle-members",)),
    Forgery("absolute", added("/tmp/escaped-from-a-bundle"), UNNAMED, ("bundle-members",)),
    Forgery("symlink", entry(tarfile.SYMTYPE, target="/etc/hostname"), UNPLAIN, HEADERS),
    Forgery("hardlink", entry(tarfile.LNKTYPE, target="index.json"), UNPLAIN, HEADERS),
    Forgery("device", entry(tarfile.CHRTYPE), UNPLAIN, HEADERS),
    Forgery("fifo", entry(tarfile.FIFOTYPE), UNPLAIN, HEADERS),
    Forgery("folder", entry(tarfile.DIRTYPE), UNPLAIN, HEADERS),
    Forgery("long-name", entry(tarfile.GNUTYPE_LONGNAME), UNPLAIN, HEADERS),
]


def attack(forgery: Forgery) -> Attack:
    """The release that has this bundle, signed and delivered."""

    def make(ground: Ground, victim: Victim) -> Made:
        bundle = ground.folder / f"{forgery.name}-{next(numbers)}.bundle"
        bundle.write_bytes(forgery.build())
        wanted = ground.signed(next(numbers), bundle)
        ground.serve(wanted)
        ground.tell_trust(victim)
        ground.desired(victim.name, wanted.envelope(victim.name, next(numbers), ground.desk.director))
        return wanted

    make.__name__ = forgery.name
    return Attack(make, forgery.reason, forgery.weak)


each = pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.name)


@pytest.fixture(scope="module")
def scene(kind: Any, grounds: Callable[..., Ground]) -> tuple[Ground, Victim]:
    """A fleet with one site that has all its checks."""
    ground = grounds(kind)
    return ground, ground.victim("plant-01")


@pytest.fixture(scope="module")
def weak_ground(grounds: Callable[..., Ground]) -> Ground:
    """A fleet for sites without one check or another."""
    return grounds()


@each
def test_a_site_refuses_it_and_says_so(scene: tuple[Ground, Victim], forgery: Forgery) -> None:
    ground, victim = scene
    attack(forgery).is_refused(ground, victim)
    assert escaped(victim) == []


@each
def test_without_the_checks_it_would_run(weak_ground: Ground, forgery: Forgery) -> None:
    """Even then nothing is written by a name from a bundle: it is never unpacked onto a disk."""
    attack(forgery).succeeds(weak_ground)
    assert escaped(weak_ground.victims[-1]) == []


def test_a_path_in_a_manifest_is_only_a_name(scene: tuple[Ground, Victim]) -> None:
    """This one is no lie, so it runs; and nothing lies where it points."""
    ground, victim = scene
    wanted = attack(Forgery("manifest-path", _with_path, "", ())).make(ground, victim)
    victim.installs(wanted.release.release)
    assert escaped(victim) == []


def escaped(victim: Victim) -> list[Path]:
    """What lies where a path of a forgery points, from wherever it may have been followed."""
    return [*Path("/tmp").glob("escaped-from-a-bundle*"), *victim.folder.parent.rglob("escaped*")]


def _with_path() -> bytes:
    files = layout.unpack(shipped_path("trace", "2").read_bytes())
    layers = [Layer(path, DOC, bytes(data)) for path, data in files.items()]
    for path in ("../../escaped", "/tmp/escaped-from-a-bundle"):
        layers.append(Layer(path, DOC, path.encode()))
    return layout.pack(layers, descriptor={"name": "trace", "version": "2"}, config={"format": "onnx"})
