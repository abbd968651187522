"""A site as a process: what survives kill -9, what it connects to, and what it says of bad input."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

import edge_models
from edge_agent.memory.queries import open_intents
from edge_agent.memory.schema import reading
from edge_agent.memory.verify import verify

BUNDLES = Path(edge_models.__path__[0]) / "data"

POLICY = """
policy: everything-acts
version: 1
rules:
  - name: act
    when: prediction.score >= 0.0
    do: {tool: alert, with: {message: =prediction.label}}
"""

PORT = re.compile(r"sin6?_port=htons\((\d+)\)")

MakeSite = Callable[..., Path]


@pytest.fixture
def make_site(tmp_path: Path) -> MakeSite:
    """Writes a site file whose one agent replays the trace bundle's golden samples and acts on each."""
    shutil.copy(BUNDLES / "trace-2.bundle", tmp_path / "trace.bundle")
    (tmp_path / "policy.yaml").write_text(POLICY)

    def make(source: dict[str, Any] | None = None, **keys: Any) -> Path:
        agent = {
            "name": "watch",
            "bundle": "trace.bundle",
            "policy": "policy.yaml",
            "source": source or {"kind": "replay", "file": "trace.bundle", "rate_per_s": 400, "repeat": True},
            "grants": ["alert"],
            "valid_for_s": 600,
        }
        file = tmp_path / "site.yaml"
        site = {"site": "plant-01", "release": 1, "grants": ["alert"], "api": {"port": 0}, "agents": [agent]} | keys
        file.write_text(yaml.safe_dump(site))
        return file

    return make


class Site:
    """`edge-agent run` as a child."""

    def __init__(self, file: Path, *options: str, before: tuple[str, ...] = ()) -> None:
        self.memory = file.parent / "data" / "memory.db"
        command = [*before, sys.executable, "-m", "edge_cli.main", "run", str(file), *options]
        self.log = file.with_name(f"site-{time.monotonic_ns()}.log")
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)

    def count(self, kind: str) -> int:
        """Durable records of this kind."""
        if not self.memory.exists():
            return 0
        with closing(sqlite3.connect(f"file:{self.memory}?mode=ro", uri=True)) as db:
            try:
                return int(db.execute("SELECT count(*) FROM journal WHERE kind=?", (kind,)).fetchone()[0])
            except sqlite3.OperationalError:  # it is being made
                return 0

    def end(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code and all it said."""
        if self.child.poll() is None:
            self.child.send_signal(how)
        return self.child.wait(20), self.log.read_text()


@pytest.fixture
def run() -> Iterator[Callable[..., Site]]:
    """Runs sites, and ends them."""
    sites: list[Site] = []

    def start(file: Path, *options: str, before: tuple[str, ...] = ()) -> Site:
        sites.append(Site(file, *options, before=before))
        return sites[-1]

    yield start
    for site in sites:
        if site.child.poll() is None:
            site.end(signal.SIGKILL)


def test_kill_9_again_and_again_loses_no_record_and_leaves_no_intent(
    make_site: MakeSite, run: Callable[..., Site], until: Callable[..., Any]
) -> None:
    file = make_site()
    for _ in range(4):
        site = run(file)
        before = site.count("decision")
        until(lambda site=site, before=before: site.count("decision") > before + 40, "decisions")
        site.end(signal.SIGKILL)
    last = run(file)
    before = last.count("decision")
    until(lambda: last.count("decision") > before, "decisions after the last kill")
    code, said = last.end()
    assert code == 0, said
    with reading(last.memory) as db:
        assert verify(db).findings == ()
        assert open_intents(db) == []
        assert db.execute("SELECT count(*) FROM epochs").fetchone() == (5,)
        twice = "SELECT ref FROM journal WHERE kind='action' GROUP BY ref HAVING count(*) > 1"
        assert db.execute(twice).fetchall() == []
        decided = {row[0] for row in db.execute("SELECT epoch||':'||lane||':'||seq FROM journal WHERE kind='decision'")}
        acted = {row[0] for row in db.execute("SELECT ref FROM journal WHERE kind='action'")}
        assert decided == acted


def test_a_stopped_site_says_so_and_folds_its_memory_up(
    make_site: MakeSite, run: Callable[..., Site], until: Callable[..., Any]
) -> None:
    site = run(make_site())
    until(lambda: site.count("decision") > 5, "decisions")
    assert site.end()[0] == 0
    assert not site.memory.with_name("memory.db-wal").exists()
    with reading(site.memory) as db:
        labels = [row[0] for row in db.execute("SELECT label FROM journal WHERE agent='site' ORDER BY id")]
    assert [label for label in labels if label != "checkpoint"] == ["started", "stopped"]
    assert labels[-1] == "checkpoint"


def test_a_recorded_file_is_played_once_and_the_site_ends(make_site: MakeSite, run: Callable[..., Site]) -> None:
    site = run(make_site({"kind": "replay", "file": "trace.bundle"}), "--once")
    assert site.child.wait(30) == 0
    assert site.count("observation") == site.count("decision") == 40


def test_a_second_process_on_the_same_data_is_refused(
    make_site: MakeSite, run: Callable[..., Site], until: Callable[..., Any]
) -> None:
    file = make_site()
    first = run(file)
    until(lambda: first.count("decision") > 0, "decisions")
    second = run(file)
    second.child.wait(20)
    code, said = second.end()
    assert code == 2
    assert "another process runs this site" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"kind": "mqtt", "topic": "trace"}, "agent 'watch': source mqtt: key 'endpoint' is missing"),
        ({"kind": "mqtt", "topic": "trace", "endpoint": "press"}, "agent 'watch': no endpoint is named 'press'"),
        ({"kind": "htp"}, "agent 'watch': no source is named 'htp' (did you mean 'http'?"),
    ],
)
def test_a_source_that_can_not_be_made_is_one_line_and_doctor_finds_it_before(
    make_site: MakeSite, run: Callable[..., Site], source: dict[str, Any], says: str
) -> None:
    file = make_site(source)
    command = [sys.executable, "-m", "edge_cli.main", "doctor", str(file), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    failed = [each["what"] for each in json.loads(done.stdout)["findings"] if each["level"] == "fail"]
    assert [what for what in failed if what.startswith(says)], failed
    site = run(file)
    site.child.wait(30)
    code, said = site.end()
    assert code == 2
    assert said.splitlines()[-1].startswith(f"error: site plant-01: {says}")


def test_a_site_that_is_given_anothers_memory_does_not_start(
    make_site: MakeSite, run: Callable[..., Site], until: Callable[..., Any]
) -> None:
    file = make_site()
    first = run(file)
    until(lambda: first.count("decision") > 0, "decisions")
    first.end()
    before = first.count("event")
    named = file.read_text().partition("site: ")[2].split()[0]
    file.write_text(file.read_text().replace(f"site: {named}", "site: another", 1))
    second = run(file)
    second.child.wait(20)
    code, said = second.end()
    assert code == 2
    assert f"the memory there is of site {named}, and this is another: name another folder with --data" in said
    assert "Traceback" not in said
    assert first.count("event") == before


def test_a_message_that_is_no_observation_is_an_event_and_the_agent_goes_on(
    make_site: MakeSite, run: Callable[..., Site], tmp_path: Path
) -> None:
    good = {"window": [0.0] * 275}
    lines = [json.dumps(good), "no json", json.dumps({"window": [1, 2]}), json.dumps({"x": 1}), json.dumps(good)]
    (tmp_path / "messages.jsonl").write_text("\n".join(lines))
    site = run(make_site({"kind": "replay", "file": "messages.jsonl"}), "--once")
    assert site.child.wait(30) == 0
    assert site.count("decision") == 2
    with reading(site.memory) as db:
        bodies = [json.loads(row[0]) for row in db.execute("SELECT body FROM journal WHERE label='source' ORDER BY id")]
    assert len(bodies) == 3
    assert "wanted (batch, 275) float32" in bodies[1]["malformed"]


def test_a_running_site_connects_to_nothing_it_was_not_told_of(
    make_site: MakeSite, run: Callable[..., Site], until: Callable[..., Any], tmp_path: Path
) -> None:
    """The kernel's own account of every connect(2) and sendto(2) to an address, by strace."""
    strace = shutil.which("strace")
    if strace is None:
        if os.environ.get("CI"):
            pytest.fail("strace is not installed: .ci/run should have installed it")
        pytest.skip("strace is not installed")
    with socket.create_server(("127.0.0.1", 0)) as told_of:
        port = told_of.getsockname()[1]
        endpoints = {"machines": {"url": f"mqtt://127.0.0.1:{port}"}}
        source = {"kind": "mqtt", "endpoint": "machines", "topic": "a/b"}
        account = tmp_path / "strace"
        before = (
            strace,
            "-D",
            "-f",
            "-qq",
            "-e",
            "trace=connect,sendto,sendmsg,sendmmsg,getsockname",
            "-o",
            str(account),
        )
        site = run(make_site(source, endpoints=endpoints), before=before)
        told_of.settimeout(20)
        told_of.accept()[0].close()
        until(lambda: site.count("event") > 0, "the site to be up")
        time.sleep(1.0)  # a second of ordinary life is what is watched
        site.end()
    lines = [line for line in account.read_text().splitlines() if "sa_family=AF_INET" in line]
    # paho wakes its own thread through a pair of loopback sockets: a port this process was just given is its own.
    own = {match[1] for line in lines if "getsockname(" in line and (match := PORT.search(line))}
    out = [line for line in lines if "getsockname(" not in line]
    assert any(f"htons({port})" in line for line in out)
    strange = [line for line in out if not ((match := PORT.search(line)) and match[1] in {*own, str(port)})]
    assert strange == []
    assert all('inet_addr("127.0.0.1")' in line for line in out)


def test_a_port_in_use_is_one_clear_line(make_site: MakeSite, run: Callable[..., Site]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        site = run(make_site(api={"port": taken.getsockname()[1]}))
        site.child.wait(20)
        code, said = site.end()
    assert code == 2
    assert "in use" in said
    assert "Traceback" not in said


def test_a_full_disk_stops_acting_and_what_comes_after_it_is_whole(
    make_site: MakeSite, run: Callable[..., Site], until: Callable[..., Any], tmp_path: Path
) -> None:
    """A real small file system, filled by another file while the site runs, then freed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("a tmpfs can't be mounted here: needs root")
    file = make_site({"kind": "replay", "file": "trace.bundle", "rate_per_s": 50, "repeat": True})
    site = run(file, "--data", str(disk / "data"))
    try:
        site.memory = disk / "data" / "memory.db"
        until(lambda: site.count("decision") > 10, "decisions")
        with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(4096))
        held = -1
        deadline = time.monotonic() + 30
        while held != (held := site.count("decision")):
            assert time.monotonic() < deadline, "it went on writing to a full disk"
            time.sleep(1.5)
        assert site.child.poll() is None
        (disk / "ballast").unlink()
        until(lambda: site.count("decision") > held, "decisions once there is room")
        code, said = site.end()
        assert code == 0, said
        with reading(site.memory) as db:
            assert verify(db).findings == ()
            assert open_intents(db) == []
            decided = db.execute("SELECT count(*) FROM journal WHERE kind='decision'").fetchone()
            assert db.execute("SELECT count(*) FROM journal WHERE kind='action'").fetchone() == decided
    finally:
        site.end(signal.SIGKILL)
        subprocess.run(["umount", str(disk)], check=True)
