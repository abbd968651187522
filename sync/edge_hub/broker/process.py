"""A broker as a child process: mosquitto where it is installed, else amqtt.

On loopback by password; for sites elsewhere by certificate, on mosquitto only.
"""

import errno
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType

from edge_hub.broker.fence import fence, has_fences
from edge_hub.broker.folder import BrokerFolder
from edge_hub.broker.lifeline import die_with_parent
from edge_hub.broker.mosquitto import CONF, find_mosquitto, render_conf
from edge_hub.broker.probe import accepts
from edge_hub.broker.roles import PROBE
from edge_hub.broker.running import Kind, Running, find_running, last_run, note_running, process_born
from edge_hub.broker.tls import TlsListener
from edge_hub.files import write_private
from edge_models.errors import ConfigError, RetryableError

READY_S = 15.0
"""How long a broker may take to let its first user in; amqtt on a busy machine needs some seconds."""

_LEAVING_S = 3.0
"""How long a broker whose parent was killed may take to be gone."""

_TRIES = 5


class BrokerProcess:
    """A running broker. Start it from a thread that lives as long as the process: it ends with that thread."""

    def __init__(
        self,
        folder: BrokerFolder,
        port: int = 0,
        prefer: Kind | None = None,
        tls: TlsListener | None = None,
        hidden: Collection[Path] = (),
    ) -> None:
        """Starts it and waits until it lets users in.

        `port`: on loopback; 0: the port of this folder's last broker if that is free, else any. `prefer` None:
        mosquitto where it is installed. `tls`: where sites elsewhere come in. `hidden`: folders that it can't look
        into, but for its own, where the kernel has fences. Raises `ConfigError` where that broker can't run, or
        `RetryableError` where it does not get ready.
        """
        self._folder = folder
        self._log = folder.path / "broker.log"
        self._tls, self._hidden = tls, hidden
        self.kind: Kind = _choose(prefer)
        if tls is not None:
            tls.check()
            if self.kind != "mosquitto":
                raise ConfigError(f"{self.kind} does not check certificates: a broker for other machines is mosquitto")
        _refuse_second(folder)
        self._probe = folder.add_user(PROBE, "probe", replace=True)
        for candidate in _ports(folder, port):
            self._child = self._spawn(candidate)
            try:
                ready = self._wait_ready(candidate)
            except BaseException:  # Ctrl-C too
                self.stop()
                raise
            if ready:
                self.port = candidate
                note_running(folder.path, Running(self.kind, candidate, self.pid, process_born(self.pid)))
                return
        raise ConfigError(f"port {port} of 127.0.0.1 is in use: {self.kind} cannot listen on it")

    @property
    def url(self) -> str:
        """Where clients on this machine reach it."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def alive(self) -> bool:
        """Whether the child runs."""
        return self._child.poll() is None

    def reload(self) -> None:
        """Make it read its users again."""
        self._folder.reload()

    def stop(self) -> None:
        """End the child and wait until it is gone; nothing happens where it is gone already."""
        self._child.terminate()
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def __enter__(self) -> "BrokerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        lifeline = die_with_parent()
        with self._log.open("wb") as log, self._fenced() as close_in:

            def first() -> None:  # between fork and exec: each only asks the kernel
                if lifeline is not None:
                    lifeline()
                if close_in is not None:
                    close_in()

            return subprocess.Popen(
                self._command(port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C in a terminal is for the parent, which ends the broker last
                preexec_fn=first,  # noqa: PLW1509
            )

    def _fenced(self) -> AbstractContextManager[Callable[[], None] | None]:
        if not self._hidden or not has_fences():
            return nullcontext()
        return fence(self._hidden, [self._folder.path])

    def _command(self, port: int) -> list[str]:
        if self.kind == "mosquitto":
            conf = self._folder.path / CONF
            write_private(conf, render_conf(self._folder.path, port, self._tls))
            return [find_mosquitto() or "mosquitto", "-c", str(conf)]
        config = self._folder.path / "amqtt.json"
        settings = {"host": "127.0.0.1", "port": port, "credentials": str(self._folder.credentials)}
        write_private(config, json.dumps(settings).encode())
        return [sys.executable, "-m", "edge_hub.broker.amqtt_child", str(config)]

    def _wait_ready(self, port: int) -> bool:
        """True: ready. False: the port is taken by somebody else. Raises `RetryableError` for anything else."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if not self.alive():
                if _why_taken("127.0.0.1", port):
                    return False
                if self._tls is not None and (why := _why_taken(self._tls.host, self._tls.port)):
                    where = f"{self._tls.host}:{self._tls.port}"
                    raise ConfigError(f"--mqtts {where}: {self.kind} cannot listen there for sites: {why}")
                raise RetryableError(f"{self.kind} ended at once: {_last_line(self._log)}")
            if accepts(port, PROBE, self._probe):
                return True
            time.sleep(0.02)
        raise RetryableError(f"{self.kind} was not ready after {READY_S:.0f} s: {_last_line(self._log)}")


def _choose(prefer: Kind | None) -> Kind:
    if prefer == "mosquitto" and find_mosquitto() is None:
        raise ConfigError("mosquitto is not installed: install it, or use the embedded broker amqtt")
    if prefer is not None:
        return prefer
    return "mosquitto" if find_mosquitto() is not None else "amqtt"


def _refuse_second(folder: BrokerFolder) -> None:
    deadline = time.monotonic() + _LEAVING_S
    while (running := find_running(folder.path)) is not None:
        if time.monotonic() > deadline:
            raise ConfigError(
                f"a broker runs on {folder.path} already: {running.kind}, process {running.pid}, port {running.port}"
            )
        time.sleep(0.05)


def _ports(folder: BrokerFolder, port: int) -> list[int]:
    """The ports to try, in order."""
    if port:
        return [port]
    last = last_run(folder.path)
    remembered = [last.port] if last is not None and not _why_taken("127.0.0.1", last.port) else []
    return remembered + [free_port() for _ in range(_TRIES)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _why_taken(host: str, port: int) -> str | None:
    """Why nobody can begin to listen there now; None where one can."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        return "another program does" if taken else str(error.strerror or error)
    return None


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
