"""Chunks that lie, and too many of them: only bytes that were signed become a model, and nothing else is kept.

Holds promises 6 and 7. The director asks for what the operator signed; whoever owns the broker brings it.
"""

import hashlib
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from attacker import Ground, Made, Victim, padded, wait_until
from update_bench import chunks

from edge_sync.chunks import MAGIC, chunk_message
from edge_sync.documents import DESIRED_TYPE, Desired, dump
from edge_sync.release import CHUNK_SIZE_BYTES
from edge_sync.signing import sign
from edge_sync.topics import fleet_chunk

numbers = count(2)
"""Of releases and generations: each is higher than those before."""

TWO = CHUNK_SIZE_BYTES + 1
OTHER = "sha256:" + "ab" * 32
"""Nobody wants it."""


@pytest.fixture(scope="module")
def scene(kind: Any, grounds: Callable[..., Ground]) -> tuple[Ground, Victim]:
    """A fleet with one site that has all its checks."""
    ground = grounds(kind)
    return ground, ground.victim("plant-01")


@pytest.fixture(scope="module")
def weak_ground(grounds: Callable[..., Ground]) -> Ground:
    """A fleet for sites without one check or another."""
    return grounds()


def test_wrong_bytes_are_refused_and_the_right_ones_taken(scene: tuple[Ground, Victim]) -> None:
    ground, victim = scene
    wanted, lies = _wanted_and_lies(ground, victim)
    with victim.refusing("not the bytes that were signed", len(lies)):
        _send(ground, wanted.model, lies)
    assert victim.runs()[0] != wanted.release.release
    _send(ground, wanted.model, _right(wanted))
    victim.installs(wanted.release.release)
    assert victim.model() == wanted.model


def test_chunks_swapped_among_themselves_are_refused(scene: tuple[Ground, Victim]) -> None:
    """Right bytes at the wrong place."""
    ground, victim = scene
    wanted = _wants(ground, victim)
    data = _bytes(wanted)
    halves = [data[:CHUNK_SIZE_BYTES], data[CHUNK_SIZE_BYTES : 2 * CHUNK_SIZE_BYTES]]
    swapped = [chunk_message(wanted.model, i, 2, len(data), half) for i, half in enumerate(reversed(halves))]
    with victim.refusing("not the bytes that were signed", 2):
        _send(ground, wanted.model, swapped)
    _send(ground, wanted.model, _right(wanted))
    victim.installs(wanted.release.release)


def test_behind_the_chunks_hashes_stands_that_of_the_whole(weak_ground: Ground) -> None:
    victim = weak_ground.victim("whole", "chunk-hash")
    wanted, lies = _wanted_and_lies(weak_ground, victim)
    with victim.refusing("its chunks make other bytes"):
        _send(weak_ground, wanted.model, lies)
    assert victim.runs() == (1, 0)
    victim.end()


def test_without_any_hash_another_model_would_run_under_its_name(weak_ground: Ground) -> None:
    victim = weak_ground.victim("no-hash", "chunk-hash", "blob-hash")
    wanted, lies = _wanted_and_lies(weak_ground, victim)
    _send(weak_ground, wanted.model, lies)
    victim.installs(wanted.release.release)
    assert victim.model() != wanted.model
    victim.end()


def test_what_is_no_chunk_is_dropped(scene: tuple[Ground, Victim]) -> None:
    ground, victim = scene
    wanted = _wants(ground, victim)
    data = _bytes(wanted)
    header = chunk_message(wanted.model, 0, 2, len(data), b"")
    wrong = [
        b"",
        b"x" * 100,
        MAGIC,
        MAGIC + b"\xff\xff" + b"\x81" * 100,
        MAGIC + b"\x00\x05" + b"\xff" * 5,
        header + bytes(CHUNK_SIZE_BYTES + 1024),
        header + bytes(1_000_000),
        header[:-1] + bytes(3) + data[:CHUNK_SIZE_BYTES],
    ]
    with victim.refusing("chunk: is no chunk message", 5):
        _send(ground, wanted.model, wrong)
        for index in (-1, 2, 2**40):  # no such chunk: nothing to say of it
            message = chunk_message(wanted.model, index, 2, len(data), data[:CHUNK_SIZE_BYTES])
            ground.say(fleet_chunk(wanted.model), message, retain=False)
    _send(ground, wanted.model, _right(wanted))
    victim.installs(wanted.release.release)


def test_chunks_that_nobody_wants_fill_neither_disk_nor_memory(scene: tuple[Ground, Victim]) -> None:
    ground, victim = scene
    wanted = _wants(ground, victim)
    before, held = victim.memory_mb(), victim.blobs()
    victim.forget_peak()
    for message in _unwanted():
        ground.say(fleet_chunk(wanted.model), message, retain=False)
    victim.goes_on()
    _send(ground, wanted.model, _right(wanted))
    victim.installs(wanted.release.release)
    assert victim.peak_mb() - before < 48
    assert not _escaped(victim).exists()
    assert set(victim.blobs()) <= set(held) | {wanted.model.removeprefix("sha256:")}


def test_without_the_wish_they_would_be_kept_and_even_outside_its_folder(weak_ground: Ground) -> None:
    victim = weak_ground.victim("greedy", "chunk-wanted")
    wanted = _wants(weak_ground, victim)
    for message in _unwanted():
        weak_ground.say(fleet_chunk(wanted.model), message, retain=False)
    wait_until(lambda: _escaped(victim).exists(), lambda: f"a file outside: {victim.said()}")
    wait_until(lambda: sum(victim.blobs().values()) > 64 * CHUNK_SIZE_BYTES, "the disk to fill")
    victim.end()


def test_an_artifact_takes_no_more_of_the_disk_than_its_signed_size(scene: tuple[Ground, Victim]) -> None:
    """The director is stolen: it describes a small artifact, which the operator signed, as having many chunks."""
    ground, victim = scene
    number = next(numbers)
    wanted = ground.signed(number, policy=f"policy: p\nversion: {number}\nrules:\n  - {{name: a, when: 'true'}}\n")
    ground.tell_trust(victim)
    digest = wanted.release.agents[0].policy
    junk = [hashlib.sha256(str(i).encode()).digest() * (CHUNK_SIZE_BYTES // 32) for i in range(40)]
    # The last never comes, so that what is kept of the others stays.
    ground.answers[digest] = [chunk_message(digest, i, 40, 1, data) for i, data in enumerate(junk[:-1])]
    release = wanted.release.model_dump(mode="json")
    release["artifacts"][digest]["chunks"] = [hashlib.sha256(data).hexdigest() for data in junk]
    asked = Desired(site=victim.name, generation=next(numbers), issued_us=0, release=release)
    before = len(victim.refusals())

    def taken() -> int:
        return sum(size for name, size in victim.blobs().items() if name.startswith(digest.removeprefix("sha256:")))

    def over() -> bool:
        return victim.alive() and (taken() > CHUNK_SIZE_BYTES or len(victim.refusals()) > before)

    ground.desired(victim.name, sign(dump(asked), DESIRED_TYPE, ground.desk.director))
    wait_until(over, lambda: f"a refusal: {victim.said()}")
    assert taken() <= CHUNK_SIZE_BYTES
    assert len(victim.refusals()) > before
    assert victim.runs()[0] != number


def _wants(ground: Ground, victim: Victim) -> Made:
    """A signed release with a model of two chunks, which the site wants and nobody brings."""
    number = next(numbers)
    wanted = ground.signed(number, padded(ground.folder / f"{number}.bundle", TWO, f"genuine {number}"))
    ground.tell_trust(victim)
    ground.desired(victim.name, wanted.envelope(victim.name, next(numbers), ground.desk.director))
    wait_until(lambda: wanted.model in ground.wanted, lambda: f"a wish for its chunks: {victim.said()}")
    return wanted


def _wanted_and_lies(ground: Ground, victim: Victim) -> tuple[Made, list[bytes]]:
    """The same, and chunks of a model of the attacker's own under the name of that one."""
    own = padded(ground.folder / f"own-{next(numbers)}.bundle", TWO, "own").read_bytes()
    wanted = _wants(ground, victim)
    return wanted, chunks(wanted.model, own)


def _bytes(wanted: Made) -> bytes:
    return next(data for digest, data in wanted.blobs.items() if digest == wanted.model)


def _right(wanted: Made) -> list[bytes]:
    return chunks(wanted.model, _bytes(wanted))


def _send(ground: Ground, model: str, messages: list[bytes]) -> None:
    for message in messages:
        ground.say(fleet_chunk(model), message, retain=False)


def _unwanted() -> list[bytes]:
    """Two hundred chunks of other artifacts, and one that would be written elsewhere."""
    many = [chunk_message(OTHER, index, 4096, 2**29, bytes(CHUNK_SIZE_BYTES)) for index in range(200)]
    return [chunk_message("sha256:../../escaped", 0, 1, 7, b"escaped"), *many]


def _escaped(victim: Victim) -> Path:
    return victim.data / "blobs" / ".." / ".." / "escaped.part"
