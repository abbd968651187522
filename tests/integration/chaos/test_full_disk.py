"""No room on the disk of a site, or of the hub."""

import random
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from edge_hub.broker import FEEDER
from edge_sync.mqtt import Broker, Event, Link, Message, Up

if TYPE_CHECKING:
    from tests.integration.chaos.conftest import Process, Site, World

    Until = Callable[..., Any]

ACTING = """
policy: everything-acts
version: 1
rules:
  - name: act
    when: prediction.score >= 0.0
    do: {tool: mqtt.publish, with: {endpoint: machines, topic: press, payload: {label: =prediction.label}}}
"""

pytestmark = pytest.mark.parametrize("world", ["mosquitto"], indirect=True)


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, int], Path]]:
    """Mounts small file systems, and takes them away."""
    mounted: list[Path] = []

    def mount(at: Path, size_mb: int) -> Path:
        at.mkdir(parents=True, exist_ok=True)
        words = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(at)]
        if subprocess.run(words, check=False, capture_output=True).returncode != 0:
            pytest.skip("a tmpfs can't be mounted here: needs root")
        mounted.append(at)
        return at

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def hub_disk(small_disk: Callable[[Path, int], Path], tmp_path: Path) -> Path:
    """Where the hub's folder will be; ask for it before `world`."""
    return small_disk(tmp_path / "hub", 24)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Not a byte is left on it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def capped(process: "Process", files: list[Path], chance: random.Random) -> Iterator[None]:
    """The process may write no byte beyond a place inside each of these files: a quota, without a file system."""
    most = chance.randrange(4096, min(file.stat().st_size for file in files))
    print("at most", most, "bytes a file")
    before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)


class Machine:
    """Hears what the site's agent tells the machines."""

    def __init__(self, world: "World", until: "Until") -> None:
        self._heard: list[Event] = []
        secret = world.brokers.service_user(FEEDER, "feeder")
        self.link = Link(Broker(world.broker.url, FEEDER, FEEDER, secret), self._heard.append, [("local/#", 1)])
        self.link.start()
        until(lambda: any(isinstance(event, Up) for event in self._heard), "the machine to listen")

    def told(self) -> list[str]:
        """The decisions it was told to carry out."""
        return [orjson.loads(event.payload)["decision"] for event in self._heard if isinstance(event, Message)]


@pytest.fixture
def machine(world: "World", until: "Until") -> Iterator[Machine]:
    """A machine at the site."""
    made = Machine(world, until)
    yield made
    made.link.close()


def acting(world: "World", data: Path | None = None) -> "Site":
    """A site that tells the machine of each decision."""
    settings = world.settings("plant-01", rate_per_s=60)
    settings["grants"] = settings["agents"][0]["grants"] = ["mqtt.publish"]
    policy = world.folder / "acting.yaml"
    policy.write_text(ACTING)
    settings["agents"][0]["policy"] = str(policy)
    secret = world.folder / "local.password"
    secret.write_text(world.brokers.add_user("_local_plant-01", "local", replace=True))
    settings["endpoints"] = {
        "machines": {
            "url": world.broker.url,
            "username": "_local_plant-01",
            "password_file": str(secret),
            "topic_prefix": "local/plant-01/",
        }
    }
    return world.add(settings, data=data)


def is_whole(world: "World", site: "Site", machine: Machine, still: Callable[..., Any]) -> None:
    """While there is no room: nothing decided, nothing done, and the process lives."""
    decided = still(site.decided, "the site to write no more")
    told = still(machine.told, "the machine to hear no more")
    assert site.alive()
    assert still(site.decided, "nothing to be written") == decided
    assert machine.told() == told


def ends_well(world: "World", site: "Site", machine: Machine) -> None:
    """There is room again: it goes on by itself, and what was done was decided, and once."""
    pid = site.pid
    world.runs(site)
    assert site.pid == pid
    world.settle(site)
    told = machine.told()
    assert len(told) == len(set(told))
    done = world.records(site, "SELECT ref FROM journal WHERE kind='action' AND label='mqtt.publish'")
    assert set(told) == {ref for (ref,) in done}


def test_a_site_on_a_full_disk_neither_records_nor_acts_and_goes_on_when_there_is_room(
    world: "World", small_disk: Callable[[Path, int], Path], tmp_path: Path, machine: Machine, still: Callable[..., Any]
) -> None:
    disk = small_disk(tmp_path / "disk", 12)
    site = acting(world, disk / "data")
    site.begin()
    world.runs(site)
    with filled(disk):
        is_whole(world, site, machine, still)
    ends_well(world, site, machine)


@pytest.mark.long
def test_a_site_that_may_write_no_more_neither_records_nor_acts_and_goes_on_when_it_may(
    world: "World", machine: Machine, chance: random.Random, still: Callable[..., Any], until: "Until"
) -> None:
    site = acting(world)
    site.begin()
    world.runs(site)
    wal = site.memory.with_name("memory.db-wal")
    until(lambda: min(site.memory.stat().st_size, wal.stat().st_size) > 65_536, "files to be large enough")
    with capped(site, [site.memory, wal], chance):
        is_whole(world, site, machine, still)
    ends_well(world, site, machine)


def nothing_acked_is_missing(world: "World", site: "Site", still: Callable[..., Any]) -> None:
    """While the hub can store nothing: it lives, and a site believes of nothing that is not there."""
    held = still(lambda: world.hub.held("plant-01"), "the hub to take no more", 3.0)
    acked = site.acked()  # before the hub is asked: what is acked is there already
    highs = world.hub.highs("plant-01")
    assert all(highs.get(stream, 0) >= seq for stream, seq in acked.items())
    assert world.hub.alive()
    assert world.hub.held("plant-01") == held
    decided = site.decided()
    assert still(lambda: site.decided() > decided, "the site to go on") is True


def goes_on(world: "World", site: "Site") -> None:
    """There is room again at the hub: it goes on by itself."""
    pid = world.hub.pid
    world.runs(site)
    assert world.hub.pid == pid
    world.settle(site)


def test_a_hub_on_a_full_disk_acks_nothing_it_has_not_stored_and_goes_on_when_there_is_room(
    hub_disk: Path, world: "World", still: Callable[..., Any]
) -> None:
    site = world.add(world.settings("plant-01"))
    site.begin()
    world.runs(site)
    with filled(hub_disk):
        nothing_acked_is_missing(world, site, still)
    goes_on(world, site)


@pytest.mark.long
def test_a_hub_that_may_write_no_more_acks_nothing_it_has_not_stored_and_goes_on_when_it_may(
    world: "World", chance: random.Random, still: Callable[..., Any], until: "Until"
) -> None:
    site = world.add(world.settings("plant-01"))
    site.begin()
    world.runs(site)
    wal = world.hub.database.with_name("hub.db-wal")
    until(lambda: min(world.hub.database.stat().st_size, wal.stat().st_size) > 65_536, "files to be large enough")
    with capped(world.hub, [world.hub.database, wal], chance):
        nothing_acked_is_missing(world, site, still)
    goes_on(world, site)
