"""A site as a process whose memory is damaged: it goes on, and says what it lost. Holds MEMORY.md, section Damage."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

import edge_models
from edge_agent.memory.damage import MARK
from edge_agent.memory.outbox import read_batch, streams
from edge_agent.memory.rescue import set_aside
from edge_agent.memory.schema import reading
from edge_agent.memory.verify import verify
from edge_sync.batch import decode
from edge_sync.ingest import Prefix, Store, judge
from edge_sync.rows import chain_start

BUNDLES = Path(edge_models.__path__[0]) / "data"
POLICY = """
policy: everything-acts
version: 1
rules:
  - name: act
    when: prediction.score >= 0.0
    do: {tool: alert, with: {message: =prediction.label}}
"""


class Site:
    """`edge-agent run` as a child, of a site that replays golden samples and acts on each."""

    def __init__(self, folder: Path) -> None:
        shutil.copy(BUNDLES / "trace-2.bundle", folder / "trace.bundle")
        (folder / "policy.yaml").write_text(POLICY)
        source = {"kind": "replay", "file": "trace.bundle", "rate_per_s": 200, "repeat": True}
        agent = {"name": "watch", "bundle": "trace.bundle", "policy": "policy.yaml", "source": source}
        site = {"site": "plant-01", "release": 1, "grants": ["alert"], "agents": [agent | {"grants": ["alert"]}]}
        self._file = folder / "site.yaml"
        self._file.write_text(yaml.safe_dump(site))
        self._log = folder / "site.log"
        self.memory = folder / "data" / "memory.db"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "edge_cli.main", "run", str(self._file)]
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self._child is None:
            return 0
        if self._child.poll() is None:
            self._child.send_signal(how)
        code = self._child.wait(30)
        self._child = None
        return code

    def count(self, what: str) -> int:
        """Durable records that are so."""
        if not self.memory.exists():
            return 0
        try:
            with closing(sqlite3.connect(f"file:{self.memory}?mode=ro", uri=True)) as db:
                return int(db.execute(f"SELECT count(*) FROM journal WHERE {what}").fetchone()[0])
        except sqlite3.DatabaseError:  # it is being made, or mended
            return 0

    def log(self) -> str:
        """All it said."""
        return self._log.read_text()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site, killed at the end."""
    made = Site(tmp_path)
    yield made
    made.end(signal.SIGKILL)


def _killed(site: Site, until: Callable[..., Any]) -> int:
    """Have it run for a while and kill it; how many decisions it made."""
    site.start()
    until(lambda: site.count("kind='decision'") > 100, "decisions")
    site.end(signal.SIGKILL)
    return site.count("kind='decision'")


def _alarm(site: Site) -> dict[str, Any]:
    with reading(site.memory) as db:
        rows = db.execute("SELECT lane, body FROM journal WHERE label='journal_damaged'").fetchall()
    assert len(rows) == 1
    assert rows[0][0] == "alarm"
    return dict(json.loads(rows[0][1]))


def _hub_takes_all(site: Site) -> None:
    with reading(site.memory) as db:
        assert verify(db).findings == ()
        for state in streams(db):
            prefix = Prefix(0, chain_start(*state.stream))
            while prefix.high < state.last:
                outgoing = read_batch(db, state.stream, prefix.high)
                assert outgoing is not None
                verdict = judge(prefix, decode(outgoing.message), lambda _: None)
                assert isinstance(verdict, Store), verdict
                prefix = verdict.prefix


def test_a_memory_that_sqlite_cannot_open_is_mended_and_the_site_decides(site: Site, until: Callable[..., Any]) -> None:
    made = _killed(site, until)
    with closing(sqlite3.connect(site.memory)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with site.memory.open("r+b") as file:
        file.write(os.urandom(1024))
    site.start()
    until(lambda: site.count("kind='decision'") > made + 20, "decisions after the damage")
    assert site.end() == 0, site.log()
    alarm = _alarm(site)
    assert alarm["lost_at_most"] == 0
    assert [file.name for file in set_aside(site.memory.parent)] == [alarm["kept_as"]]
    assert not site.memory.with_name(MARK).exists()
    _hub_takes_all(site)


def test_damage_is_found_while_the_site_runs_and_it_mends_itself(site: Site, until: Callable[..., Any]) -> None:
    """After an unclean stop all is looked through; the site that finds a row changed begins anew by itself."""
    _killed(site, until)
    with closing(sqlite3.connect(site.memory)) as db:
        epoch = db.execute("SELECT epoch FROM epochs").fetchone()[0]
        db.execute("UPDATE journal SET body='{}' WHERE lane='decision' AND seq=9")
        db.commit()
        shutil.copyfile(f"{site.memory}-wal", f"{site.memory}-kept")
    os.replace(f"{site.memory}-kept", f"{site.memory}-wal")
    site.start()
    until(lambda: site.count("label='journal_damaged'"), "the alarm", 60.0)
    until(lambda: site.count("label='journal_damaged'") and site.count("kind='decision'") > 110, "decisions after it")
    assert site.end() == 0, site.log()
    alarm = _alarm(site)
    assert alarm["gaps"] == [f"{epoch}:decision:9-9"]
    assert alarm["lost_at_most"] == 1
    _hub_takes_all(site)
