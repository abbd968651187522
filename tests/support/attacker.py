"""Somebody who owns the broker, and the site they are after: a real broker, a real site process, any traffic between.

A site is only looked at from outside: its memory's file, its folder, and what the kernel says of its process.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from operator_desk import Desk
from update_bench import chunks

from edge_agent.memory.schema import open_writer
from edge_hub.broker import BrokerFolder, BrokerProcess
from edge_hub.broker.lifeline import die_with_parent
from edge_hub.broker.running import Kind
from edge_models.bundle import read_bundle, write_bundle
from edge_models.digests import Digest
from edge_models.shipped import shipped_path
from edge_sync.documents import DESIRED_TYPE, Desired, dump
from edge_sync.mqtt import Broker, Event, Link, Message, Up
from edge_sync.release import AgentSpec, Release, SourceSpec, resolve
from edge_sync.signing import sign
from edge_sync.topics import FLEET_TRUST, down, fleet_chunk

DEADLINE_S = 60.0
"""For what takes two seconds on an idle machine."""

OWNER = "_hub-66"
"""The broker's user with the rights of a hub: who owns a broker has them."""

POLICY = """
policy: everything-acts
version: 1
rules:
  - name: act
    when: prediction.score >= 0.0
    do: {tool: alert, with: {message: =prediction.label}}
"""


def wait_until(true: Callable[[], Any], what: Callable[[], str] | str, seconds: float = DEADLINE_S) -> Any:
    """Wait for a condition, and return what it says."""
    deadline = time.monotonic() + seconds
    while not (value := true()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s in vain for {what if isinstance(what, str) else what()}")
        time.sleep(0.05)
    return value


@dataclass(frozen=True, slots=True)
class Made:
    """A release and its bytes."""

    release: Release
    blobs: Mapping[Digest, bytes]

    @property
    def model(self) -> str:
        """The digest of its one model."""
        return self.release.agents[0].bundle

    def document(self, site: str, generation: int, issued_us: int = 0) -> bytes:
        """The payload that asks a site for it."""
        asked = self.release.model_dump(mode="json")
        return dump(Desired(site=site, generation=generation, issued_us=issued_us, release=asked))

    def envelope(self, site: str, generation: int, key: Path, issued_us: int = 0) -> bytes:
        """The same, signed."""
        return sign(self.document(site, generation, issued_us), DESIRED_TYPE, key)


def agent(number: int, bundle: Path | str, policy: Path | str) -> AgentSpec:
    """An agent that decides all the time. Another number makes another document of the same parts."""
    trace = str(shipped_path("trace", "2"))
    return AgentSpec(
        name="watch",
        bundle=str(bundle),
        policy=str(policy),
        source=SourceSpec.model_validate({"kind": "replay", "file": trace, "rate_per_s": 20, "repeat": True}),
        grants=["alert"],
        valid_for_s=600 + number,
    )


@dataclass(frozen=True, slots=True)
class Attack:
    """What is done (it returns the release that would run then), why a site refuses it, and which checks do so."""

    make: Callable[["Ground", "Victim"], Made]
    reason: str
    weak: tuple[str, ...]
    refusals: int = 1
    """How many messages of it are refused."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.make.__name__.replace("_", "-")

    def is_refused(self, ground: "Ground", victim: "Victim") -> None:
        """Make it against a site that has all its checks: nothing changes there, and the refusal is a record."""
        with victim.refusing(self.reason, self.refusals):
            wanted = self.make(ground, victim)
        assert victim.runs()[0] != wanted.release.release
        victim.goes_on()
        assert victim.runs()[0] != wanted.release.release

    def succeeds(self, ground: "Ground") -> None:
        """Make it against a site without these checks: what the attacker wants runs there."""
        victim = ground.victim(self.name, *self.weak)
        wanted = self.make(ground, victim)
        victim.installs(wanted.release.release)
        assert victim.model() == wanted.model
        victim.end()


def padded(out: Path, size: int, mark: str) -> Path:
    """A whole, honest model in a bundle of more than `size` bytes; another mark makes another one."""
    good = read_bundle(shipped_path("trace", "2"))
    card = dict(good.card) | {"mark": mark, "pad": "x" * size}
    write_bundle(out, contract=good.contract, graph=good.graph, golden=good.golden, card=card)
    return out


class Victim:
    """`edge-agent run`, or the same process with checks switched off (`weak_site`)."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, Any], weak: Sequence[str] = ()) -> None:
        self.name, self.folder, self.data = name, folder, folder / "data"
        self.file, self._log = folder / "site.yaml", folder / "site.log"
        self.file.write_text(yaml.safe_dump({"site": name, "data": str(self.data), "api": None, **settings}))
        # With a memory, however empty, it does not ask a hub for the one it lost.
        self.data.mkdir(mode=0o700)
        open_writer(self.data / "memory.db", 512).close()
        module = ["weak_site", ",".join(weak)] if weak else ["edge_cli.main", "run"]
        self._words = [sys.executable, "-m", *module, str(self.file)]
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> "Victim":
        """Start it, and wait until it decides."""
        support = str(Path(__file__).resolve().parent)
        known = os.environ | {"PYTHONPATH": os.pathsep.join([support, os.environ.get("PYTHONPATH", "")])}
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                self._words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=known,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - only asks the kernel
            )
        self.goes_on(1)
        return self

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, by its pid."""
        child, self._child = self._child, None
        if child is not None:
            if child.poll() is None:
                os.kill(child.pid, how)
            child.wait(20)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of its memory."""
        with closing(sqlite3.connect(f"{(self.data / 'memory.db').as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            return db.execute(query, values).fetchall()

    def runs(self) -> tuple[int, int]:
        """Release and generation of the active slot; release 1 of generation 0 is what its site file names."""
        found = self.rows("SELECT release, generation FROM slots WHERE slot='active'")
        return (int(found[0][0]), int(found[0][1])) if found else (1, 0)

    def refusals(self) -> list[str]:
        """Why it refused what it refused: its alarm records, oldest first."""
        rows = self.rows("SELECT body FROM journal WHERE lane='alarm' AND label='update_refused' ORDER BY id")
        return [str(json.loads(row[0])["reason"]) for row in rows]

    @contextmanager
    def refusing(self, reason: str, times: int = 1) -> Iterator[None]:
        """What is done inside must be refused `times`, and for this reason, which must be among its alarm records.

        The same refusal is one record a minute: that it happened again is read from the log.
        """
        before, ever = self._refused(reason), self._refused("")
        yield

        def refused() -> bool:
            return self.alive() and self._refused(reason) > before and self._refused("") >= ever + times

        wait_until(refused, lambda: f"{reason!r}: {self.said()}")
        wait_until(lambda: any(reason in said for said in self.refusals()), lambda: f"{reason!r}: {self.said()}")

    def _refused(self, reason: str) -> int:
        lines = self._log.read_bytes().splitlines()
        said = [json.loads(line) for line in lines if b'"update_refused"' in line and line.endswith(b"}")]
        return sum(reason in str(line["reason"]) for line in said)

    def installs(self, release: int) -> None:
        """Wait until it runs this release, and decides by it."""
        wait_until(lambda: self.runs()[0] == release, lambda: f"release {release} at {self.name}: {self.said()}")
        wait_until(lambda: self._decided_by()[0] == release, lambda: f"decisions of release {release}: {self.said()}")

    def model(self) -> str:
        """The digest of the model behind its newest decision, as it was computed when that model was loaded."""
        return self._decided_by()[1]

    def goes_on(self, more: int = 5) -> None:
        """Wait until it has decided some more."""
        before = self.decided()
        wait_until(lambda: self.alive() and self.decided() >= before + more, lambda: f"decisions: {self.said()}")

    def decided(self) -> int:
        """How often it did."""
        return int(self.rows("SELECT count(*) FROM journal WHERE kind='decision'")[0][0])

    def versions(self) -> dict[str, int]:
        """Role → version of the metadata that it has verified."""
        found = {}
        for path in (self.data / "trust" / "metadata").glob("*.json"):
            with suppress(FileNotFoundError):  # python-tuf makes the link to the newest root anew each time
                found[path.stem] = int(json.loads(path.read_bytes())["signed"]["version"])
        return found

    def trusts(self, versions: Mapping[str, int]) -> None:
        """Wait until it has verified these."""
        wanted = dict(versions).items()
        wait_until(lambda: wanted <= self.versions().items(), lambda: f"{versions}: {self.versions()} {self.said()}")

    def blobs(self) -> dict[str, int]:
        """Name and size of every file among its artifacts."""
        return {path.name: path.stat().st_size for path in (self.data / "blobs").iterdir()}

    def memory_mb(self) -> float:
        """What it holds of memory now."""
        return self._status("VmRSS")

    def peak_mb(self) -> float:
        """The most it has held since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Begin to measure."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._child is not None
        return self._child.pid

    def alive(self) -> bool:
        """It runs, or the test fails."""
        assert self._child is not None, f"{self.name} was not started"
        assert self._child.poll() is None, self.said()
        return True

    def said(self) -> str:
        """What it runs, what it refused, and the end of its log."""
        log = self._log.read_text(errors="replace") if self._log.exists() else ""
        lines = [line for line in log.splitlines() if '"alert"' not in line]
        return f"runs {self.runs()}, refused {self.refusals()}, log: " + "\n".join(lines)[-2500:]

    def _decided_by(self) -> tuple[int, str]:
        rows = self.rows("SELECT body FROM journal WHERE kind='decision' ORDER BY id DESC LIMIT 1")
        body: dict[str, Any] = json.loads(rows[0][0]) if rows else {"release": 0, "model": ""}
        return int(body["release"]), str(body["model"])

    def _status(self, name: str) -> float:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) / 1024


class Ground:
    """A broker, the operator and the hub's keys of one fleet, and who owns that broker."""

    def __init__(
        self,
        folder: Path,
        kind: Kind | None = None,
        desk: Desk | None = None,
        broker: Callable[..., BrokerProcess] = BrokerProcess,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.desk = desk or Desk(folder / "desk")
        self.users = BrokerFolder(folder / "broker")
        self._secret = folder / "owner.password"
        self._secret.write_text(self.users.add_user(OWNER, "hub"))
        self.broker = broker(self.users, prefer=kind)
        self.answers: dict[str, Sequence[bytes]] = {}
        """Digest → the chunk messages with which a wish for it is answered."""
        self.wanted: list[str] = []
        """The digests that sites asked for."""
        self.victims: list[Victim] = []
        self._up = False
        self._policy = folder / "policy.yaml"
        self._policy.write_text(POLICY)
        who = Broker(self.broker.url, OWNER, OWNER, self._secret, reconnect_max_s=1)
        self._link = Link(who, self._heard, [("edge/v1/+/up/want", 1)])
        self._link.start()
        wait_until(lambda: self._up, "the broker's owner to be connected")

    def close(self) -> None:
        """End all of it."""
        for victim in self.victims:
            victim.end()
        self._link.close()
        self.broker.stop()
        self.desk.close()

    def make(self, number: int, bundle: Path | None = None, policy: str = POLICY) -> Made:
        """A release that nobody has signed yet; by default of the parts that sites have already."""
        file = self._policy if policy == POLICY else self.folder / f"policy-{number}.yaml"
        file.write_text(policy)
        spec = agent(number, bundle or shipped_path("trace", "1"), file)
        return Made(*resolve(number, [spec], self.folder))

    def signed(self, number: int, bundle: Path | None = None, policy: str = POLICY) -> Made:
        """A release that the operator has signed, and handed over to the hub; the broker has it not yet."""
        made = self.make(number, bundle, policy)
        self.desk.sign(made.release, made.blobs)
        return made

    def victim(self, name: str, *weak: str, url: str | None = None, secret: Path | None = None) -> Victim:
        """A site of this fleet, with release 1, that runs when this returns. `weak`: the checks it lacks."""
        folder = self.folder / name
        folder.mkdir()
        if secret is None:
            secret = folder / "hub.password"
            secret.write_text(self.users.add_user(name, "site"))
        (folder / "root.json").write_bytes(self.desk.root)
        link = {
            "broker": url or self.broker.url,
            "username": name,
            "password_file": str(secret),
            "root": "root.json",
            "reconnect_max_s": 1,
        }
        spec = agent(1, shipped_path("trace", "1"), self._policy).model_dump(mode="json", exclude_defaults=True)
        settings = {"hub": link, "release": 1, "agents": [spec], "grants": ["alert"], "updates": {"trial_s": 3600}}
        self.victims.append(Victim(name, folder, settings, weak))
        return self.victims[-1].start()

    def say(self, topic: str, payload: bytes, retain: bool = True) -> None:
        """Publish, and wait until the broker has it."""
        wait_until(lambda: self._link.publish_and_wait(topic, payload, retain=retain), f"{topic} to be taken")

    def trust(self, packed: bytes) -> None:
        """What all sites are told may run."""
        self.say(FLEET_TRUST, packed)

    def genuine_trust(self) -> None:
        """What the hub would publish now."""
        self.trust(self.desk.packed())

    def versions(self) -> dict[str, int]:
        """Role → version of what the hub would publish now."""
        return {role: int(version) for role, version in self.desk.trust.standing()["versions"].items()}

    def tell_trust(self, victim: Victim) -> None:
        """What the hub would publish now, and wait until the site has verified it."""
        self.genuine_trust()
        victim.trusts(self.versions())

    def desired(self, site: str, envelope: bytes) -> None:
        """What a site is told to run."""
        self.say(down(site, "desired"), envelope)

    def serve(self, made: Made) -> None:
        """Answer whoever wants its bytes, as the hub does."""
        self.answers |= {str(digest): chunks(str(digest), data) for digest, data in made.blobs.items()}

    def _heard(self, event: Event) -> None:
        self._up = self._up or isinstance(event, Up)
        if isinstance(event, Message):
            digest = str(json.loads(event.payload)["digest"])
            self.wanted.append(digest)
            for message in self.answers.get(digest, ()):
                self._link.publish(fleet_chunk(digest), message, qos=0)
