"""Two bad links between a site and its broker: a relay that needs nothing, and a wire of packets that needs root.

Kernels of small machines often lack `tc netem`; the wire does the same to real packets of the kernel's own TCP, in
this process: two TUN devices, one of them in a network namespace of the site's own.
"""

import asyncio
import contextlib
import datetime
import fcntl
import heapq
import ipaddress
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from tests.integration.chaos.conftest import Process, World


@dataclass(frozen=True, slots=True)
class Weather:
    """What a link does to each packet (a relay: to each piece of what a side says)."""

    loss: float = 0.0
    """The share that never arrives; a relay, which may lose nothing, lets it wait for `RESENT_S` instead."""
    delay_s: float = 0.0
    jitter_s: float = 0.0
    doubled: float = 0.0
    cut_bytes: int = 0
    """A relay only: about every so many bytes it breaks the connection, most often in the middle of a packet."""


CLEAR = Weather()
RESENT_S = 1.0


class Relay:
    """Passes bytes on between a port of its own and another; can delay, fall silent, or break off anywhere."""

    before: tuple[str, ...] = ()
    """What stands before a site's command."""

    def __init__(self, target: int, chance: random.Random) -> None:
        self._target, self._chance = target, chance
        self.weather, self.cuts = CLEAR, 0
        self._silent = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        port = self._server.sockets[0].getsockname()[1]
        self.link: dict[str, Any] = {"broker": f"mqtt://127.0.0.1:{port}"}

    def silence(self) -> None:
        """From now on nothing arrives on either side, and no side is told so."""
        self._silent = True

    def mend(self) -> None:
        """New connections work again; what was said into the silence is gone, and its connections with it."""
        self._call(self._break_all())

    def close(self) -> None:
        """End it."""
        self._server.close()
        self._call(self._break_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _break_all(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        self._silent = False  # in one step: nothing of these connections is passed on any more
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ends = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(far_writer)
            async with asyncio.TaskGroup() as ways:  # one that ends ends the others
                for one_way in ((reader, far_writer), (far_reader, writer)):
                    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
                    ways.create_task(self._take(one_way[0], under_way))
                    ways.create_task(self._hand_over(under_way, one_way[1]))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass
        finally:
            for end in ends:
                end.transport.abort()
            self._tasks.discard(task)

    async def _take(self, reader: asyncio.StreamReader, under_way: asyncio.Queue[tuple[float, bytes]]) -> None:
        """Draw when each piece arrives; none arrives before the one that was sent before it."""
        due = 0.0
        while data := await reader.read(4096):
            late_s = self.weather.delay_s + self._chance.uniform(-1, 1) * self.weather.jitter_s
            late_s += RESENT_S if self._chance.random() < self.weather.loss else 0.0
            due = max(due, time.monotonic() + late_s)
            await under_way.put((due, data))
        while self._silent:  # nor is anybody told that the other side has gone
            await asyncio.sleep(0.05)
        raise ConnectionResetError("a side has ended")

    async def _hand_over(self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        until_cut: int | None = None
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self._silent:
                continue
            if self.weather.cut_bytes and until_cut is None:
                until_cut = self._chance.randrange(1, 2 * self.weather.cut_bytes)
            if until_cut is not None:
                data, until_cut = data[:until_cut], until_cut - len(data)
            writer.write(data)
            await writer.drain()
            if until_cut is not None and until_cut < 0:
                self.cuts += 1
                raise ConnectionResetError("cut")


HERE, THERE = "10.231.77.1", "10.231.77.2"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


class NoWireError(Exception):
    """Why there can be no wire on this machine."""


class Wire:
    """A link of packets into a network namespace, where a site runs. `link` is filled in by whoever has a broker."""

    def __init__(self, chance: random.Random) -> None:
        """Raises `NoWireError`."""
        if os.getuid() != 0:
            raise NoWireError("network namespaces need root")
        if shutil.which("ip") is None:
            raise NoWireError("iproute2 is not installed")
        if not Path("/dev/net/tun").exists():
            raise NoWireError("there is no /dev/net/tun")
        self._chance, self.weather, self._silent = chance, CLEAR, False
        self.link: dict[str, Any] = {}
        self.passed = self.lost = self.doubled = 0
        self._name = f"edge{os.getpid()}"
        self.before = ("ip", "netns", "exec", self._name)
        self._fds: list[int] = []
        self._wake, self._stop = os.pipe()
        try:
            self._lay()
        except (OSError, subprocess.CalledProcessError) as error:
            self._take_away()
            raise NoWireError(f"no wire can be laid here: {getattr(error, 'stderr', '') or error}") from None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def silence(self) -> None:
        """From now on no packet arrives on either side."""
        self._silent = True

    def mend(self) -> None:
        """Packets arrive again; old connections may come to life again by themselves."""
        self._silent = False

    def close(self) -> None:
        """Take it away."""
        os.write(self._stop, b".")
        self._thread.join()
        self._take_away()

    def _lay(self) -> None:
        _ip("netns", "add", self._name)
        near, far = f"{self._name}a", f"{self._name}b"
        self._fds = [_tun(near), _tun(far)]
        _ip("link", "set", far, "netns", self._name)
        _ip("addr", "add", f"{HERE}/30", "dev", near)
        _ip("link", "set", near, "up")
        for words in (
            ("addr", "add", f"{THERE}/30", "dev", far),
            ("link", "set", far, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", self._name, *words)

    def _take_away(self) -> None:
        for fd in (*self._fds, self._wake, self._stop):
            os.close(fd)
        subprocess.run(["ip", "netns", "del", self._name], check=False, capture_output=True)

    def _run(self) -> None:
        """Read packets on both sides, and hand each to the other side when its time has come, or never, or twice."""
        late: list[tuple[float, int, int, bytes]] = []
        other = {self._fds[0]: self._fds[1], self._fds[1]: self._fds[0]}
        number = 0
        while True:
            wait_s = max(0.0, late[0][0] - time.monotonic()) if late else None
            ready, _, _ = select.select([*other, self._wake], [], [], wait_s)
            if self._wake in ready:
                return
            for fd in ready:
                packet = os.read(fd, 65_536)
                weather, now = self.weather, time.monotonic()
                if self._silent or self._chance.random() < weather.loss:
                    self.lost += 1
                    continue
                twice = self._chance.random() < weather.doubled
                self.doubled += twice
                for _ in range(1 + twice):
                    number += 1
                    at = now + weather.delay_s + self._chance.uniform(-1, 1) * weather.jitter_s
                    heapq.heappush(late, (at, number, other[fd], packet))
            while late and late[0][0] <= time.monotonic():
                _, _, fd, packet = heapq.heappop(late)
                self.passed += 1
                with contextlib.suppress(OSError):
                    os.write(fd, packet)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def _tun(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError:
        os.close(fd)
        raise
    return fd


@pytest.fixture
def relay(world: "World", chance: random.Random) -> Iterator[Relay]:
    """A relay before the world's broker."""
    made = Relay(world.broker.port, chance)
    yield made
    made.close()


@pytest.fixture
def wire(world: "World", chance: random.Random, other_mosquitto: Callable[[str], "Process"]) -> Iterator[Wire]:
    """A wire to a mosquitto with TLS, which takes the place of the world's broker (where that is mosquitto)."""
    try:
        made = Wire(chance)
    except NoWireError as reason:
        pytest.skip(str(reason))
    try:
        _serve_tls(world, made, other_mosquitto)
        yield made
    finally:
        made.close()


@pytest.fixture
def long_way(request: pytest.FixtureRequest) -> "Relay | Wire":
    """The wire where this machine allows one, else the relay, and why."""
    try:
        Wire(random.Random(0)).close()
    except NoWireError as reason:
        print(f"a relay in place of the wire: {reason}")
        found: Relay | Wire = request.getfixturevalue("relay")
    else:
        found = request.getfixturevalue("wire")
    return found


def _serve_tls(world: "World", wire: Wire, other_mosquitto: Callable[[str], "Process"]) -> None:
    certificate, key = _certificate(world.folder)
    settings = (world.brokers.path / "mosquitto.conf").read_text()
    port = world.broker.port
    listener = f"listener {port} {HERE}\nuse_username_as_clientid true\nset_tcp_nodelay true\n"
    other_mosquitto(f"{settings}{listener}certfile {certificate}\nkeyfile {key}\n")
    wire.link = {"broker": f"mqtts://{HERE}:{port}", "ca_file": str(certificate)}


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for `HERE`, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HERE))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "broker.crt", folder / "broker.key"
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, secret
