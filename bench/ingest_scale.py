"""CPU a row of taking in, at one site and at a thousand: the same rows, in the same batches, from ever more sites.

Run it: `.venv/bin/python -m bench.ingest_scale [--postgresql URL]`. Encoded batches are given to `Ingest.handle`, as
many at once as the ingest thread takes, without a broker. The CPU is this process's, and with PostgreSQL that of the
server process behind its connection too; what the server does in others (its log, its checkpoints) is not counted. All
tables of the database at URL are dropped. Baseline: one site, of the same database, in the same round.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from sqlalchemy import create_engine, func, select, text

from bench.report import Line, show
from edge_hub.database.dialect import Database
from edge_hub.database.schema import metadata, records, sites
from edge_hub.database.store import Store
from edge_hub.ingest.inbox import Heard, Inbox, Item
from edge_hub.ingest.thread import MOST, Ingest, Outgoing
from edge_hub.metrics import Metrics
from edge_sync.batch import encode
from edge_sync.rows import Row, chain, chain_start, row_bytes

ROUNDS = 3
FLEETS = (1, 10, 100, 1_000)
BATCHES = 2_000
ROWS_A_BATCH = 100
EPOCH = "00000000000000aa"
LANE = "telemetry"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run: CPU and time a row, in µs."""

    cpu_us: float
    wall_us: float


def batches(count: int) -> list[bytes]:
    """So many batches of one stream, one following the other; every site sends the same."""
    made, before = [], chain_start(EPOCH, LANE)
    for number in range(count):
        first = number * ROWS_A_BATCH + 1
        raws, end = [], before
        for seq in range(first, first + ROWS_A_BATCH):
            body = (
                f'{{"label":"ok","score":0.{seq % 997:03},"model":"sha256:5f1c","values":[{seq % 89},{seq % 97},3.5]}}'
            )
            at = 1_800_000_000_000_000 + seq
            raws.append(row_bytes(Row(seq, at, "prediction", "press", "press-1", "ok", 0.5, None, body)))
            end = chain(end, raws[-1])
        made.append(encode(EPOCH, LANE, raws, [], (first, first + ROWS_A_BATCH - 1), (before, end)))
        before = end
    return made


def heard(fleet: int, made: list[bytes]) -> Iterator[list[Item]]:
    """What comes in, in turns of the sites, as it is taken from the inbox."""
    waiting: list[Item] = [
        Heard(_name(n), "journal", message) for message in made[: BATCHES // fleet] for n in range(fleet)
    ]
    for at in range(0, len(waiting), MOST):
        yield waiting[at : at + MOST]


def run(database: Database, fleet: int, made: list[bytes]) -> Cost:
    """Take everything in, in an empty database."""
    store = Store(database)
    with store.writing() as db:
        row = {"labels": {}, "created_us": 1, "online": True}
        db.execute(sites.insert(), [row | {"site": _name(n)} for n in range(fleet)])
    ingest = Ingest(store, Inbox(), Metrics(), Outgoing(lambda *_: None, lambda *_: None, lambda _: None))
    cpu_s = _cpu_of(store)
    turns = list(heard(fleet, made))
    began_s, began_cpu_s = time.perf_counter(), cpu_s()
    for turn in turns:
        ingest.handle(turn)
    used = cpu_s() - began_cpu_s, time.perf_counter() - began_s
    with store.reading() as db:
        held = db.scalar(select(func.count()).select_from(records))
    store.close()
    if held != BATCHES * ROWS_A_BATCH:
        raise SystemExit(f"{held} rows are held, {BATCHES * ROWS_A_BATCH} were sent")
    return Cost(used[0] / held * 1e6, used[1] / held * 1e6)


def _cpu_of(store: Store) -> Callable[[], float]:
    """Reads the CPU time of this process and of the server's process behind the store, in seconds."""
    if isinstance(store.database, Path):
        return time.process_time
    with store.reading() as db:
        stat = Path(f"/proc/{db.scalar(text('SELECT pg_backend_pid()'))}/stat")

    def read() -> float:
        fields = stat.read_text().rpartition(")")[2].split()
        return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    return read


def _name(number: int) -> str:
    return f"plant-{number:04}"


def _empty(url: str) -> str:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1))
    metadata.drop_all(engine)
    engine.dispose()
    return url


def measure(what: str, fresh: Callable[[], Database], made: list[bytes]) -> list[Line]:
    """The lines of one database."""
    costs: dict[int, list[Cost]] = {fleet: [] for fleet in FLEETS}
    for _ in range(ROUNDS):
        for fleet in FLEETS:
            costs[fleet].append(run(fresh(), fleet, made))
    lines = []
    for fleet, found in costs.items():
        ratio = median(cost.cpu_us / base.cpu_us for cost, base in zip(found, costs[1], strict=True))
        figures = (f"{median(cost.cpu_us for cost in found):.1f}", f"{median(cost.wall_us for cost in found):.1f}")
        lines.append(Line(f"{what}, {fleet:,} sites", figures, f"{ratio:.2f}", "0.8–1.2" if fleet > 1 else ""))
    return lines


def main() -> None:
    """Print the table."""
    made = batches(BATCHES)
    with tempfile.TemporaryDirectory() as name:
        numbers = iter(range(1_000_000))
        lines = measure("SQLite", lambda: Path(name) / f"{next(numbers)}.db", made)
        if sys.argv[1:2] == ["--postgresql"]:
            lines += measure("PostgreSQL", lambda: _empty(sys.argv[2]), made)
    title = f"taking in {BATCHES * ROWS_A_BATCH:,} rows, {ROWS_A_BATCH} a batch, {MOST} batches a transaction at most"
    show(title, ("CPU µs a row", "time µs a row"), lines)


if __name__ == "__main__":
    main()
