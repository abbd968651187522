"""Sticks that were forged: what a technician imports is verified as if it had come by the link.

Holds promise 7. The site has its broker, but nothing comes by it; `edge-agent update import` brings everything.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from attacker import Ground, Made, Victim, padded

from edge_agent.update.wishes import Wishes
from edge_models.shipped import shipped_path
from edge_sync.signing import make_key
from edge_sync.stick import INDEX

numbers = count(2)
"""Of releases and generations: each is higher than those before."""


@dataclass(slots=True)
class Parts:
    """What lies on a stick."""

    wanted: Made
    trust: bytes
    desired: bytes
    blobs: dict[str, bytes]


def honest(ground: Ground, victim: Victim) -> Parts:
    """A stick as `edge-agent update export` makes it, with a model that the site has not got."""
    number = next(numbers)
    wanted = ground.signed(number, padded(ground.folder / f"{number}.bundle", 10, f"genuine {number}"))
    envelope = wanted.envelope(victim.name, next(numbers), ground.desk.director)
    blobs = {str(digest).removeprefix("sha256:"): data for digest, data in wanted.blobs.items()}
    return Parts(wanted, ground.desk.packed(), envelope, blobs)


def own_key(ground: Ground, victim: Victim) -> Parts:
    """A document that the attacker signed."""
    parts, key = honest(ground, victim), ground.folder / f"own-{next(numbers)}.key"
    make_key(key)
    parts.desired = parts.wanted.envelope(victim.name, next(numbers), key)
    return parts


def other_site(ground: Ground, victim: Victim) -> Parts:
    """Another site's document, under this site's name."""
    parts = honest(ground, victim)
    parts.desired = parts.wanted.envelope("plant-99", next(numbers), ground.desk.director)
    return parts


def never_signed(ground: Ground, victim: Victim) -> Parts:
    """A model that the operator never signed, asked for with the hub's stolen key."""
    parts = honest(ground, victim)
    parts.wanted = ground.make(next(numbers), padded(ground.folder / "own.bundle", 10, "own"))
    parts.desired = parts.wanted.envelope(victim.name, next(numbers), ground.desk.director)
    parts.blobs = {str(digest).removeprefix("sha256:"): data for digest, data in parts.wanted.blobs.items()}
    return parts


def older_set(ground: Ground, victim: Victim) -> Parts:
    """An old stick, with what the operator has taken back since, and the site heard that."""
    parts = honest(ground, victim)
    digest = parts.wanted.release.document_digest.removeprefix("sha256:")
    ground.desk.operator.repository.withdraw(f"agents/{digest}", lambda _: None)
    ground.desk.hand_over()
    ground.tell_trust(victim)
    return parts


def other_bytes(ground: Ground, victim: Victim) -> Parts:
    """Another model's bytes, under the digest of the one that was signed."""
    parts = honest(ground, victim)
    parts.blobs[parts.wanted.model.removeprefix("sha256:")] = shipped_path("trace", "1").read_bytes()
    return parts


@dataclass(frozen=True, slots=True)
class Forged:
    """A stick, why a site refuses it, and without which checks it would not."""

    make: Callable[[Ground, Victim], Parts]
    reason: str
    weak: tuple[str, ...]


FORGED = [
    Forged(own_key, "not signed by the key this site trusts", ("desired-signature",)),
    Forged(other_site, "is for site 'plant-99'", ("desired-site",)),
    Forged(never_signed, "is not signed by the operator", ("operator-signature",)),
    Forged(older_set, "is not signed by the operator", ("older-timestamp", "older-snapshot")),
    Forged(other_bytes, "its chunks make other bytes", ("blob-hash",)),
]
each = pytest.mark.parametrize("forged", FORGED, ids=lambda forged: forged.make.__name__)


@pytest.fixture(scope="module")
def ground(grounds: Callable[..., Ground]) -> Ground:
    """A fleet."""
    return grounds()


@pytest.fixture(scope="module")
def victim(ground: Ground) -> Victim:
    """A site that has all its checks."""
    return ground.victim("plant-01")


@each
def test_a_site_refuses_what_is_forged_and_says_so(ground: Ground, victim: Victim, forged: Forged) -> None:
    parts = forged.make(ground, victim)
    with victim.refusing(forged.reason):
        done = plug_in(ground, victim, parts)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "refused it" in done.stdout
    assert victim.runs()[0] != parts.wanted.release.release
    victim.goes_on()


@each
def test_without_the_check_it_would_run(ground: Ground, forged: Forged) -> None:
    weak = ground.victim(forged.make.__name__.replace("_", "-"), *forged.weak)
    parts = forged.make(ground, weak)
    done = plug_in(ground, weak, parts)
    assert done.returncode == 0, done.stdout + done.stderr
    weak.installs(parts.wanted.release.release)
    weak.end()


def test_an_honest_stick_is_taken_once_and_not_after_a_newer_one(ground: Ground, victim: Victim) -> None:
    old, new = honest(ground, victim), honest(ground, victim)
    for parts in (old, new):
        assert plug_in(ground, victim, parts).returncode == 0
        victim.installs(parts.wanted.release.release)
    done = plug_in(ground, victim, old)
    assert done.returncode != 0
    assert "older than" in done.stderr
    with victim.refusing("is older than"):  # and past the command
        slip_in(victim, old)
    assert victim.runs()[0] == new.wanted.release.release


def test_links_on_a_stick_are_not_followed(ground: Ground, victim: Victim) -> None:
    parts = honest(ground, victim)
    secret = ground.folder / "secret"
    secret.write_bytes(b"not for the site")
    name = parts.wanted.model.removeprefix("sha256:")

    def link(folder: Path) -> None:
        (folder / "blobs" / name).unlink()
        (folder / "blobs" / name).symlink_to(secret)

    done = plug_in(ground, victim, parts, link)
    assert done.returncode != 0
    assert "is no artifact" in done.stderr
    assert b"not for the site" not in [path.read_bytes() for path in (victim.data / "blobs").iterdir()]
    with victim.refusing("its chunks make other bytes"):  # and past the command
        slip_in(victim, parts, {name: secret})
    assert secret.read_bytes() == b"not for the site"
    assert victim.runs()[0] != parts.wanted.release.release


def plug_in(
    ground: Ground, victim: Victim, parts: Parts, change: Callable[[Path], None] = lambda _: None
) -> subprocess.CompletedProcess[str]:
    """Put it on a stick, and import that."""
    folder = ground.folder / f"stick-{next(numbers)}"
    for each in ("desired", "blobs"):
        (folder / each).mkdir(parents=True)
    (folder / INDEX).write_text(json.dumps({"made_us": 0, "valid_until_us": 0, "sites": {victim.name: 0}}))
    (folder / "trust.bin").write_bytes(parts.trust)
    (folder / "desired" / f"{victim.name}.json").write_bytes(parts.desired)
    for name, data in parts.blobs.items():
        (folder / "blobs" / name).write_bytes(data)
    change(folder)
    words = ["update", "import", str(folder), "--site", str(victim.file), "--wait", "60"]
    command = [sys.executable, "-m", "edge_cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def slip_in(victim: Victim, parts: Parts, links: dict[str, Path] | None = None) -> None:
    """Put it into the site's own folder, as the command does with what it has looked at."""
    wishes = Wishes(victim.data)
    with wishes.stick() as offer:
        offer.put("trust.bin", parts.trust)
        offer.put("desired.json", parts.desired)
        [folder] = wishes.folder.glob(".stick-*/blobs")
        for name, data in parts.blobs.items():
            if links and name in links:
                (folder / name).symlink_to(links[name])
            else:
                (folder / name).write_bytes(data)
        offer.done()
    assert not list(wishes.folder.glob(".stick-*"))
