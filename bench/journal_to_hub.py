"""A site's journal to its hub's database, over a real broker: rows a second, and bytes a row on the wire.

Run it: `.venv/bin/python -m bench.journal_to_hub`. The rows are an agent's own, made by `Loop.step`. The site (journal
and `UplinkService`) runs in a process of its own, so do broker and hub. Baseline of the speed: `executemany` of the
same rows, 500 a transaction, into the hub's own table, with nothing else running. Baseline of the bytes: each row as a
JSON message of its own, without the chain's hash.
"""

import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

import orjson
import yaml

from bench.agent import Agent, now_us
from bench.fleet import PATIENCE_S, Fleet, wait_until
from bench.report import Line, show
from edge_agent.config import load_site
from edge_agent.memory.draft import JOURNAL_AGENT, Draft
from edge_agent.memory.journal import Journal
from edge_agent.memory.outbox import read_batch
from edge_agent.memory.schema import reading
from edge_agent.uplink import UplinkService
from edge_hub.database.dialect import BulkInsert
from edge_hub.database.schema import records
from edge_hub.database.store import Store
from edge_sync.rows import LANES
from edge_sync.topics import up
from edge_sync.uplink import Stream

ROUNDS = 3
BATCH_ROWS = 500
SITE = "plant-01"
RECORDED = "epoch, lane, seq, at, kind, agent, subject, label, score, ref, body, hash"

WORKLOADS = (("shuttle: 9 numbers an observation", ("shuttle", "2"), 40_000), ("trace: 275", ("trace", "2"), 12_000))
"""What is decided on, by which bundle, and rows in all."""

Row = tuple[object, ...]


def make_rows(folder: Path, bundle: tuple[str, str], count: int) -> list[Row]:
    """At least `count` rows that an agent wrote: observations, predictions, decisions and actions."""
    with closing(Journal(folder / "model.db", 2048, now_us)) as journal:
        agent = Agent(journal, bundle, 32)
        for _ in range(count // (4 * 32) + 1):
            agent.step()
    with reading(folder / "model.db") as db:
        return db.execute(f"SELECT {RECORDED} FROM journal ORDER BY id").fetchall()


def bare(folder: Path, rows: list[Row]) -> float:
    """Rows a second of `executemany` into the hub's table, as durable as the hub is."""
    path = folder / "bare.db"
    path.unlink(missing_ok=True)
    Store(path).close()
    as_stored = [(SITE, *row, 0) for row in rows]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA wal_autocheckpoint=4000")
        sql = BulkInsert(records).sqlite
        start = time.perf_counter()
        for at in range(0, len(as_stored), BATCH_ROWS):
            db.execute("BEGIN IMMEDIATE")
            db.executemany(sql, as_stored[at : at + BATCH_ROWS])
            db.execute("COMMIT")
        return len(rows) / (time.perf_counter() - start)


def through(fleet: Fleet, folder: Path, site: str, count: int, backlog: bool) -> float:
    """Rows a second from a site's process to the hub's database.

    The clock runs from the first write into the site's journal (or, with `backlog`, from the link's start, with all
    rows in the journal already) to the commit of the last row at the hub.
    """
    data = folder / site
    known = fleet.register(site, data)
    (data / "site.yaml").write_text(yaml.safe_dump(known))
    command = [
        sys.executable,
        "-m",
        "bench.journal_to_hub",
        "--site",
        str(data / "site.yaml"),
        str(folder / "model.db"),
    ]
    with (
        closing(sqlite3.connect(f"file:{fleet.database}?mode=ro", uri=True)) as db,
        subprocess.Popen([*command, *(["--backlog"] if backlog else [])], stdout=subprocess.PIPE) as child,
    ):
        held = "SELECT sum(high) FROM streams WHERE site=?"
        every = count + 1  # and the one that says the site started
        wait_until(lambda: db.execute(held, (site,)).fetchone()[0] == every, "the hub to hold every row")
        end = time.monotonic()
        began = float(child.communicate()[0])
    return count / (end - began)


def run_site(file: Path, model: Path, backlog: bool) -> None:
    """The site's process: write the rows of `model` into a journal of its own and deliver them; says when it began."""
    site = load_site(file)
    with reading(model) as db:
        rows = db.execute("SELECT lane, kind, agent, at, body, subject, label, score, ref FROM journal ORDER BY id")
        drafts = [Draft(*row) for row in rows]
    with closing(Journal(site.data / "memory.db", 2048, now_us)) as journal:
        journal.write([Draft("decision", "event", JOURNAL_AGENT, now_us(), "{}", label="started")])
        uplink = UplinkService(site, journal, {}, now_us)
        if backlog:
            write(journal, drafts)
            print(time.monotonic())
            uplink.start()
            wait_until(lambda: uplink.online, "the link")
        else:
            uplink.start()
            wait_until(lambda: uplink.online, "the link")
            print(time.monotonic())
            write(journal, drafts)
        uplink.close(PATIENCE_S)


def write(journal: Journal, drafts: list[Draft]) -> None:
    """Durably, in transactions of `BATCH_ROWS`."""
    for at in range(0, len(drafts), BATCH_ROWS):
        journal.write(drafts[at : at + BATCH_ROWS])


def bytes_a_row(model: Path, rows_a_batch: int) -> float:
    """Bytes a row of the batches that a site would send, all lanes, MQTT's own included."""
    sent = rows = 0
    with reading(model) as db:
        epoch = db.execute("SELECT epoch FROM epochs").fetchone()[0]
        for lane in LANES:
            stream: Stream = (epoch, lane)
            after = 0
            while (outgoing := read_batch(db, stream, after, rows_a_batch)) is not None:
                sent += _on_the_wire(up(SITE, "journal"), len(outgoing.message))
                rows += outgoing.last - after
                after = outgoing.last
    return sent / rows


def json_bytes_a_row(rows: list[Row]) -> float:
    """Bytes a row where each is a JSON message."""
    names = RECORDED.split(", ")[:-1]
    sent = 0
    for row in rows:
        message = dict(zip(names, row[:-1], strict=True))
        message["body"] = orjson.Fragment(str(message["body"]))
        sent += _on_the_wire(up(SITE, "journal"), len(orjson.dumps(message)))
    return sent / len(rows)


def _on_the_wire(topic: str, payload_bytes: int) -> int:
    """Bytes of a PUBLISH at QoS 1: fixed header with its length, topic, packet id, payload."""
    body = 2 + len(topic) + 2 + payload_bytes
    return 1 + (body.bit_length() + 6) // 7 + body


def measure(fleet: Fleet, folder: Path, bundle: tuple[str, str], count: int, what: str) -> list[Line]:
    """Lines of the table for one workload."""
    rows = make_rows(folder, bundle, count)
    bare_rates, live, drained = [], [], []
    for number in range(ROUNDS):
        bare_rates.append(bare(folder, rows))
        live.append(through(fleet, folder, f"live-{number}", len(rows), backlog=False))
        drained.append(through(fleet, folder, f"backlog-{number}", len(rows), backlog=True))
    lines = [Line(f"{what}: bare executemany, rows/s", (f"{median(bare_rates):,.0f}",), "1.00")]
    sent: tuple[tuple[str, list[float], str], ...] = (
        ("written and delivered, rows/s", live, "≥ 0.3"),
        ("a backlog delivered, rows/s", drained, "≥ 0.3"),
    )
    for name, rates, target in sent:
        ratio = median(rate / base for rate, base in zip(rates, bare_rates, strict=True))
        lines.append(Line(f"    {name}", (f"{median(rates):,.0f}",), f"{ratio:.2f}", target))
    json_bytes = json_bytes_a_row(rows)
    lines.append(Line("    a JSON message a row, bytes a row", (f"{json_bytes:.0f}",), "100 %"))
    for rows_a_batch, target in ((500, "≤ 13 %"), (10, "≤ 20 %")):
        wire = bytes_a_row(folder / "model.db", rows_a_batch)
        share = f"{wire / json_bytes:.1%}".replace("%", " %")
        lines.append(Line(f"    batches of {rows_a_batch}, bytes a row", (f"{wire:.0f}",), share, target))
    return lines


def main() -> None:
    """Print the table."""
    lines: list[Line] = []
    for what, bundle, count in WORKLOADS:
        with tempfile.TemporaryDirectory() as name, Fleet(Path(name)) as fleet:
            lines += measure(fleet, Path(name), bundle, count, what)
            kind = fleet.broker.kind
    show(f"journal to hub over {kind}, durable at both ends; ratio to: see each block's first line", ("",), lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--site"]:
        run_site(Path(sys.argv[2]), Path(sys.argv[3]), backlog=sys.argv[4:] == ["--backlog"])
    else:
        main()
