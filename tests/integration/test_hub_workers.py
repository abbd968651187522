"""`edge-agent hub serve --workers N` as processes. Held: sync/SPEC.md, section Several ingest workers."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from edge_hub.broker.mosquitto import find_mosquitto
from edge_hub.broker.running import process_born
from edge_hub.database.schema import leases, records, sites, streams, workers
from edge_hub.database.store import Store
from edge_sync.answers import opened
from edge_sync.documents import EpochState, Hello, Presence, Resume, dump, load

pytestmark = [
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc"),
]

EPOCH = "00000000000000aa"
ROWS, BATCH = 600, 10


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, list[str]]:
    """Where the hub keeps its tables, and how it is told so."""
    if request.param == "sqlite":
        return tmp_path / "hub" / "hub.db", []
    url = request.getfixturevalue("postgres_url")
    return url, ["--database", url]


def children(pid: int) -> list[int]:
    """The ingest workers of a hub, by process id."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"edge_cli.hub_worker" in Path(f"/proc/{child}/cmdline").read_bytes():
            found.append(int(child))
    return found


@pytest.fixture
def view(database: tuple[Any, list[str]]) -> Iterator[Any]:
    """The hub's database, looked at beside it."""
    opened: list[Store] = []

    def look(query: Any) -> list[Any]:
        if not opened:
            opened.append(Store(database[0]))
        with opened[0].reading() as db:
            return list(db.execute(query).all())

    yield look
    for store in opened:
        store.close()


class Writer:
    """A site with a window: what is not acknowledged is sent again, from where the hub says it is."""

    def __init__(self, played: Any, written: Any, until: Any) -> None:
        self._site, self._written, self._until = played, written, until
        self.resumed = 0

    def run(self) -> None:
        """Deliver everything."""
        self._site.say("presence", dump(Presence(online=True, epoch=EPOCH, session=1)), retain=True)
        while (high := self._hello()) < ROWS:
            for first in range(high + 1, min(high + 8 * BATCH, ROWS) + 1, BATCH):
                self._site.say("journal", self._written.batch(first, first + BATCH - 1))

    def _hello(self) -> int:
        """Ask where the hub is, until somebody answers."""
        while True:
            self.resumed += 1
            sync = f"s{self.resumed}"
            state = EpochState(epoch=EPOCH, order=1, last={"decision": ROWS})
            self._site.say("hello", dump(Hello(sync=sync, epochs=[state])))
            for _ in range(100):
                came = [m for m in self._site.everything() if m.topic.endswith("/resume")]
                answers = [load(Resume, opened(m.topic, m.payload, ())) for m in came]
                for answer in answers:
                    if answer.sync == sync:
                        return int(answer.cursors[EPOCH]["decision"])
                threading.Event().wait(0.02)


def test_a_worker_that_is_killed_midway_loses_and_doubles_nothing(
    database: tuple[Any, list[str]], new_hub: Any, view: Any, tmp_path: Path, stream: Any, until: Any, connect_site: Any
) -> None:
    hub = new_hub(tmp_path / "hub", "--workers", "3", *database[1]).start()
    names = [f"plant-{n:02}" for n in range(1, 13)]
    played = [connect_site(hub, name) for name in names]

    def shares() -> list[int]:
        held = [row.worker for row in view(leases.select())]
        return sorted(held.count(worker) for worker in set(held))

    until(lambda: shares() == [4, 4, 4], "each worker to hold its share")
    pids = children(hub.facts["pid"])
    assert len(pids) == 3
    writers = [Writer(site, stream(EPOCH).grow(ROWS), until) for site in played]
    threads = [threading.Thread(target=writer.run, daemon=True) for writer in writers]
    for thread in threads:
        thread.start()
    until(lambda: sum(row.high for row in view(streams.select())) > 12 * ROWS // 10, "a part to be delivered")
    os.kill(pids[0], signal.SIGKILL)
    for thread in threads:
        thread.join(timeout=90)
        assert not thread.is_alive()
    held: dict[str, list[int]] = {}
    for row in view(records.select().order_by(*records.primary_key)):
        held.setdefault(row.site, []).append(row.seq)
    assert held == {name: list(range(1, ROWS + 1)) for name in names}
    assert {(row.site, row.high) for row in view(streams.select())} == {(name, ROWS) for name in names}
    until(lambda: len(children(hub.facts["pid"])) == 3, "the worker to be started again")
    until(lambda: shares() == [4, 4, 4], "each worker to hold its share again")
    assert {row.site for row in view(sites.select()) if row.online} == set(names)
    assert hub.api("GET", "/api/v1/sites/plant-01")["records"] == ROWS
    with urlopen(hub.facts["http"] + "/metrics", timeout=20) as answer:
        metrics = answer.read().decode()
    assert all(f'edge_hub_records_total{{worker="_hub-{n}"}}' in metrics for n in (1, 2, 3))
    assert hub.stop() == 0
    assert view(leases.select()) == view(workers.select()) == []


def test_workers_listen_to_a_new_site_say_what_is_desired_and_end_with_a_hub_that_is_killed(
    new_hub: Any, tmp_path: Path, until: Any, connect_site: Any
) -> None:
    hub = new_hub(tmp_path / "hub", "--workers", "2").start()
    site = connect_site(hub, "plant-01")
    site.say("presence", dump(Presence(online=True, epoch=EPOCH, session=1)), retain=True)
    until(lambda: hub.api("GET", "/api/v1/sites/plant-01")["online"], "the site to be seen", 10)
    pids = until(lambda: found if len(found := children(hub.facts["pid"])) == 2 else None, "both workers")
    born = {pid: process_born(pid) for pid in pids}
    hub.kill()
    until(lambda: all(process_born(pid) != born[pid] for pid in born), "the workers to end")
    with closing(sqlite3.connect(tmp_path / "hub" / "hub.db")) as db:
        assert db.execute("SELECT count(*) FROM leases").fetchone() == (1,)


@pytest.mark.long
def test_the_sites_of_a_worker_that_hangs_go_to_another_and_some_come_back(
    database: tuple[Any, list[str]], new_hub: Any, view: Any, tmp_path: Path, stream: Any, until: Any, connect_site: Any
) -> None:
    hub = new_hub(tmp_path / "hub", "--workers", "2", *database[1]).start()
    played = {name: connect_site(hub, name) for name in ("plant-01", "plant-02", "plant-03", "plant-04")}

    def shares() -> list[int]:
        held = [row.worker for row in view(leases.select())]
        return sorted(held.count(worker) for worker in set(held))

    until(lambda: shares() == [2, 2], "each worker to hold its share")
    (hung, _) = children(hub.facts["pid"])
    os.kill(hung, signal.SIGSTOP)
    until(lambda: shares() == [4], "the other to hold all")
    for site in played.values():
        Writer(site, stream(EPOCH).grow(ROWS), until).run()
    os.kill(hung, signal.SIGCONT)
    until(lambda: shares() == [2, 2], "each worker to hold its share again")
    assert {(row.site, row.high) for row in view(streams.select())} == {(name, ROWS) for name in played}


def serve(folder: Path, url: str, **known: str) -> tuple[int, str]:
    """A hub that can't start: exit code and what it said."""
    words = [sys.executable, "-m", "edge_cli.main", "hub", "serve", str(folder), "--http", "127.0.0.1:0"]
    done = subprocess.run(
        [*words, "--database", url], capture_output=True, text=True, timeout=60, check=False, env=os.environ | known
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.strip().splitlines()[-1]


def test_a_database_that_cannot_be_used_is_one_line(postgres_url: str, tmp_path: Path) -> None:
    hub, (before, _, name) = tmp_path / "hub", postgres_url.rpartition("/")
    code, said = serve(hub, f"{before}/nowhere")
    assert (code, said.endswith(': database "nowhere" does not exist')) == (2, True)
    wrong = tmp_path / "pgpass"
    wrong.write_text("*:*:*:*:wrong\n")
    wrong.chmod(0o600)
    code, said = serve(hub, postgres_url, PGPASSFILE=str(wrong))
    assert (code, "password authentication failed" in said, name in said) == (2, True, True)
    code, said = serve(hub, postgres_url, PGPASSFILE=str(tmp_path / "none"))
    assert (code, "no password supplied" in said) == (2, True)
    code, said = serve(hub, "postgresql://edge@127.0.0.1:1/x")
    assert (code, "refused" in said) == (4, True)
    code, said = serve(hub, "postgresql://edge:s3cret@127.0.0.1/x")
    assert (code, "no password in its URL" in said, "s3cret" in said) == (2, True, False)
    code, said = serve(hub, "mysql://edge@127.0.0.1/x")
    assert (code, "postgresql://USER@HOST/DATABASE" in said) == (2, True)
