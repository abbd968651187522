"""Too much of everything: whoever owns the broker can't fill a site's memory, and it goes on deciding.

Holds promises 1 and 7. What a process takes at most is asked of the kernel (VmHWM).
"""

import itertools
import string
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from attacker import Ground, Victim, wait_until
from backports import zstd
from tuf.api.metadata import Metadata, MetaFile

from edge_agent.update.wishes import Wishes
from edge_hub.broker import BrokerProcess
from edge_hub.broker.mosquitto import CONF
from edge_sync.signing import file_signer
from edge_sync.topics import FLEET_TRUST, down
from edge_sync.trust.collection import MAGIC, pack, unpack
from edge_sync.trust.paths import MAX_FILE_BYTES, MAX_SET_BYTES

ROOM_MB = 8 * MAX_SET_BYTES / 2**20
"""What one message may cost a site for a moment: eight times the largest metadata set."""


def many_files() -> bytes:
    """As many files as fit, each with a name of its own and nothing in it."""
    names = map("".join, itertools.product(string.ascii_lowercase + string.digits, repeat=4))
    files = b"".join(b"\xa4" + name.encode() + b"\xc4\x00" for name in itertools.islice(names, MAX_SET_BYTES // 7 - 1))
    return MAGIC + zstd.compress(b"\xdf" + struct.pack(">I", MAX_SET_BYTES // 7 - 1) + files, level=19)


def huge_file() -> bytes:
    """One file, larger than any may be."""
    data = bytes(MAX_FILE_BYTES + 1)
    return MAGIC + zstd.compress(b"\x81\xaetimestamp.json\xc6" + struct.pack(">I", len(data)) + data)


def bomb() -> bytes:
    """A gigabyte of zeros, in a frame that asks for the largest window."""
    parameters = {int(zstd.CompressionParameter.window_log): 27, int(zstd.CompressionParameter.compression_level): 1}
    compressor, zeros = zstd.ZstdCompressor(options=parameters), bytes(2**20)
    return MAGIC + b"".join(compressor.compress(zeros) for _ in range(1024)) + compressor.flush()


def deep() -> bytes:
    """A file that is a hundred thousand arrays inside each other."""
    return pack({"1.root.json": b"[" * 100_000 + b"]" * 100_000, "timestamp.json": b"[" * 10_000})


def garbage() -> bytes:
    """What does not even begin as metadata do."""
    return b"\xff" * 700_000


def heavy() -> bytes:
    """A set within all limits, which is as much work as a set can be until it is refused."""
    root = b'{"signatures": [], "signed": [' + b"[]," * (MAX_FILE_BYTES // 16 // 3 - 20) + b"[]]}"
    rest = {f"{version}.targets.json": bytes(MAX_FILE_BYTES - len(root)) for version in (1, 2)}
    return pack({"2.root.json": root, "timestamp.json": b"{}"} | rest)


SETS: list[tuple[Callable[[], bytes], str]] = [
    (many_files, "files, the most is"),
    (huge_file, "the most is"),
    (bomb, "unpacked"),
    (deep, "trust metadata"),
    (garbage, "does not begin as"),
]


@pytest.fixture(scope="module")
def scene(kind: Any, grounds: Callable[..., Ground]) -> tuple[Ground, Victim]:
    """A fleet with one site, which has verified metadata before: python-tuf is loaded."""
    ground = grounds(kind)
    victim = ground.victim("plant-01")
    ground.tell_trust(victim)
    return ground, victim


@pytest.fixture(scope="module")
def weak_ground(grounds: Callable[..., Ground]) -> Ground:
    """A fleet for sites without one check or another."""
    return grounds()


@pytest.mark.parametrize(("made", "reason"), SETS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_metadata_set_beyond_the_limits_costs_little(
    scene: tuple[Ground, Victim], made: Callable[[], bytes], reason: str
) -> None:
    ground, victim = scene
    message, before = made(), victim.memory_mb()
    victim.forget_peak()
    with victim.refusing(reason):
        ground.trust(message)
    assert victim.peak_mb() - before < ROOM_MB
    victim.goes_on()
    _takes_what_is_genuine(ground, victim)


@pytest.mark.parametrize("made", [bomb], ids=lambda made: made.__name__)
def test_without_the_limits_it_would_cost_much(weak_ground: Ground, made: Callable[[], bytes]) -> None:
    victim = weak_ground.victim(made.__name__.replace("_", "-"), "set-limits")
    weak_ground.tell_trust(victim)
    before = victim.memory_mb()
    victim.forget_peak()
    with victim.refusing("trust metadata"):
        weak_ground.trust(made())
    assert victim.peak_mb() - before > 8 * ROOM_MB
    victim.end()


def test_what_the_hubs_own_key_signs_is_bounded_before_it_is_read(scene: tuple[Ground, Victim]) -> None:
    """Targets of 4 MiB of small JSON values, which the stolen online key says are the newest."""
    ground, victim = scene
    files = unpack(ground.desk.packed())
    snapshot_name = next(name for name in files if "snapshot" in name)
    snapshot, timestamp = (Metadata[Any].from_bytes(files[name]) for name in (snapshot_name, "timestamp.json"))
    version = snapshot.signed.version = timestamp.signed.version = timestamp.signed.version + 1
    snapshot.signed.meta["targets.json"] = MetaFile(99)
    timestamp.signed.snapshot_meta = MetaFile(version)
    for each in (snapshot, timestamp):
        each.sign(file_signer(ground.desk.online))
    swollen = b'{"signatures": [], "signed": [' + b"[]," * (MAX_FILE_BYTES // 3 - 20) + b"[]]}"
    new = {f"{version}.snapshot.json": snapshot.to_bytes(), "99.targets.json": swollen}
    before = victim.memory_mb()
    victim.forget_peak()
    with victim.refusing("trust metadata"):
        ground.trust(pack(files | new | {"timestamp.json": timestamp.to_bytes()}))
    assert victim.peak_mb() - before < 2 * ROOM_MB
    victim.goes_on()


def test_a_document_of_any_size_costs_little(scene: tuple[Ground, Victim]) -> None:
    ground, victim = scene
    before = victim.memory_mb()
    victim.forget_peak()
    for payload in (b"[" * 500_000, b'{"payload":' + b"[]," * 170_000, b"x" * 1_000_000):
        with victim.refusing("signed document"):
            ground.desired("plant-01", payload)
    assert victim.peak_mb() - before < ROOM_MB
    victim.goes_on()


@contextmanager
def flooding(ground: Ground, *messages: tuple[str, bytes]) -> Iterator[None]:
    """Meanwhile these are published without end, each as fast as the broker takes it."""
    stop = threading.Event()

    def flood(topic: str, payload: bytes) -> None:
        while not stop.is_set():
            ground.say(topic, payload)

    threads = [threading.Thread(target=flood, args=message, daemon=True) for message in messages for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


class BoundlessBroker(BrokerProcess):
    """mosquitto as its owner may set it: it passes on messages of any size."""

    def _command(self, port: int) -> list[str]:
        command = super()._command(port)
        conf = self._folder.path / CONF
        bounded = ("message_size_limit", "max_packet_size", "max_queued_bytes")
        conf.write_text(
            "\n".join(line for line in conf.read_text().splitlines() if not line.startswith(bounded)) + "\n"
        )
        return command


def test_a_message_of_any_size_costs_little(mosquitto: Any, new_ground: Callable[..., Ground]) -> None:
    """A broker's owner is not bound by its limits: MQTT allows 256 MB, and a node gives a site 512 MiB of memory."""
    ground = new_ground(broker=BoundlessBroker)
    victim = ground.victim("plant-01")
    ground.tell_trust(victim)
    before = victim.memory_mb()
    victim.forget_peak()
    ground.say(FLEET_TRUST, bytes(250_000_000), retain=False)
    ground.desired("plant-01", b"{}")
    wait_until(lambda: victim.alive() and victim.refusals(), lambda: f"what came after it: {victim.said()}")
    assert victim.peak_mb() - before < ROOM_MB
    victim.goes_on()


def test_a_flood_keeps_nobody_at_the_site_from_going_back(kind: Any, new_ground: Callable[..., Ground]) -> None:
    """Who looks at the site's own wishes, and at a release on trial, also reads what the broker brings without end."""
    ground = new_ground(kind)
    victim = ground.victim("plant-01")
    _takes_what_is_genuine(ground, victim)
    with flooding(ground, (FLEET_TRUST, heavy()), (down("plant-01", "desired"), b'{"payload":[' + b"[]," * 170_000)):
        wait_until(victim.refusals, lambda: f"a refusal: {victim.said()}")
        Wishes(victim.data).go_back("the technician says so")
        wait_until(lambda: victim.runs()[0] == 1, lambda: f"the release before: {victim.said()}", 30)
        victim.goes_on()


def _takes_what_is_genuine(ground: Ground, victim: Victim) -> None:
    """It has not lost its way."""
    ground.desk.operator.repository.renew(lambda _: None)
    number = victim.runs()[0] + 1
    wanted = ground.signed(number)
    ground.tell_trust(victim)
    ground.desired(victim.name, wanted.envelope(victim.name, number, ground.desk.director))
    victim.installs(number)
