"""A new memory made of what can be proven of a damaged one. Only reads the damaged one."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from edge_agent.memory.carve import Carver, Value
from edge_agent.memory.entries import Entry, entry, insert
from edge_agent.memory.retention import HIGH_WATER, make_room, used_pages
from edge_agent.memory.schema import open_writer, transaction
from edge_agent.memory.small_tables import SmallTables, put_facts, put_intents, put_slots, read_small
from edge_agent.memory.splice import DAMAGED, Found, Splice
from edge_models.errors import RejectedError
from edge_sync import checkpoint
from edge_sync.rows import LANES, Gap, Row, row_bytes

_COLUMNS = 13
_HEAD = 4
_LABEL = 8
_MAX_ORDER = 2**32
"""The order of no epoch is larger: it counts starts of a process."""

_PART_BYTES = 512 * 1024
"""Of bodies in one transaction."""

Stream = tuple[str, str]


@dataclass(slots=True)
class Salvaged:
    """What was carried over. `lost` counts at most: the hub may have some of it."""

    rows: int = 0
    lost: int = 0
    gaps: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows of a small table that can't be what was written; of one that can't be read to its end, one more."""
    anything: bool = False
    """Whether there is anything of it worth a file."""


@dataclass(slots=True)
class _Epoch:
    orders: Counter[int] = field(default_factory=Counter)
    started_at: int = 0
    noted: dict[str, int] = field(default_factory=dict)
    signed: int | None = None
    first_id: int = 2**63


def salvage(damaged: Path, new: Path, budget_mb: int, most_bytes: int) -> Salvaged:
    """Make the memory at `new`, which is not there, of at most `most_bytes`. Raises `sqlite3.Error`, `OSError`."""
    scratch_file = new.with_name(f"{new.name}.scratch")
    scratch_file.unlink(missing_ok=True)
    try:
        with Carver(damaged, _COLUMNS) as carver, closing(_open_scratch(scratch_file)) as scratch:
            work = _Salvage(carver, scratch, read_small(damaged))
            work.search()
            work.splice()
            with closing(open_writer(new, budget_mb)) as connection:
                work.build(connection, most_bytes)
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return work.result
    finally:
        scratch_file.unlink(missing_ok=True)


def _open_scratch(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=OFF")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("BEGIN")
    connection.execute(
        "CREATE TABLE found (epoch TEXT, lane TEXT, seq INTEGER, page INTEGER, number INTEGER, id INTEGER,"
        " PRIMARY KEY (epoch, lane, seq, page, number)) WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TABLE kept (id INTEGER, epoch TEXT, lane TEXT, seq INTEGER, page INTEGER, number INTEGER, hash BLOB,"
        " PRIMARY KEY (id, epoch, lane, seq)) WITHOUT ROWID"
    )
    return connection


@dataclass(slots=True)
class _Salvage:
    carver: Carver
    scratch: sqlite3.Connection
    small: SmallTables
    result: Salvaged = field(default_factory=Salvaged)
    epochs: dict[str, _Epoch] = field(default_factory=dict)
    signed: dict[Stream, dict[int, bytes]] = field(default_factory=dict)
    bound: int = 0
    gaps: list[tuple[Stream, Gap]] = field(default_factory=list)
    ends: dict[Stream, int] = field(default_factory=dict)
    trimmed: dict[Stream, tuple[int, bytes]] = field(default_factory=dict)

    def search(self) -> None:
        """Note where rows of the journal stand, what epochs there were, and what checkpoints say."""
        for cell in self.carver.cells():
            head = self.carver.read(cell.page, cell.number, _HEAD)
            if head is None or len(head) < _HEAD:
                continue
            first, epoch, lane, seq = head
            if first is None and _is_epoch(epoch) and lane in LANES and isinstance(seq, int) and 0 < seq < 2**53:
                where = (epoch, lane, seq, cell.page, cell.number, cell.rowid)
                self.scratch.execute("INSERT OR IGNORE INTO found VALUES (?, ?, ?, ?, ?, ?)", where)
                if lane == checkpoint.LANE:
                    self._look_at_checkpoint(cell.page, cell.number)
            elif _is_epoch(first):
                self._look_at_epoch(self.carver.read(cell.page, cell.number))
        count = "SELECT count(*) FROM found"
        self.bound = max(self.scratch.execute(count).fetchone()[0], self.small.last_id)

    def _look_at_checkpoint(self, page: int, number: int) -> None:
        head = self.carver.read(page, number, _LABEL + 1)
        if head is None or len(head) <= _LABEL or head[_LABEL] != checkpoint.LABEL:
            return
        found = _row(self.carver.read(page, number))
        if found is None or not checkpoint.is_checkpoint(found[0]):
            return
        try:
            read = checkpoint.read(found[0].body)
        except RejectedError:
            return
        for ends in read.ends:
            self.epochs.setdefault(ends.epoch, _Epoch()).signed = ends.order
            for of, end in ends.streams.items():
                self.signed.setdefault((ends.epoch, of), {})[end.seq] = bytes.fromhex(end.hash)

    def _look_at_epoch(self, values: list[Value] | None) -> None:
        if values is None or len(values) < 6:
            return
        epoch, order, started_at, *lasts = values[:6]
        if not (isinstance(order, int) and isinstance(started_at, int) and 0 < order < _MAX_ORDER):
            return
        seen = self.epochs.setdefault(str(epoch), _Epoch())
        seen.orders[order] += 1
        seen.started_at = started_at
        for lane, last in zip(LANES, lasts, strict=True):
            if isinstance(last, int):
                seen.noted[lane] = max(seen.noted.get(lane, 0), last)

    def splice(self) -> None:
        """Follow each stream's chain."""
        streams: set[Stream] = {(epoch, lane) for epoch in self.epochs for lane in LANES}
        streams |= set(self.scratch.execute("SELECT DISTINCT epoch, lane FROM found").fetchall())
        for stream in sorted(streams):
            self._splice(stream)
        for stream, gap in self.small.gaps:
            if stream[0] not in self.epochs and stream not in self.ends:
                self.gaps.append((stream, gap))  # of an epoch that was forgotten: its gaps stay

    def _splice(self, stream: Stream) -> None:
        epoch = self.epochs.get(stream[0], _Epoch())
        declared = sorted((gap for of, gap in self.small.gaps if of == stream), key=lambda gap: gap.first)
        signed, dropped = self.signed.get(stream, {}), self.small.dropped.get(stream)
        one = Splice(*stream, declared, signed, epoch.noted.get(stream[1], 0), dropped, self.bound)
        gaps: list[Gap] = []
        rows = 0
        for part in one.run(self._found(stream)):
            if isinstance(part, Gap):
                gaps.append(part)
                continue
            rows += 1
            page, number, row_id = part.found.where
            epoch.first_id = min(epoch.first_id, row_id)
            self.scratch.execute(
                "INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?, ?, ?)",
                (row_id, *stream, part.found.seq, page, number, part.hash),
            )
        if not one.end or (stream[0] not in self.epochs and not rows):
            return  # a row whose epoch is damaged makes no epoch
        self.epochs[stream[0]] = epoch
        self.ends[stream] = one.end
        self.gaps += ((stream, gap) for gap in gaps)
        if one.trimmed is not None:
            self.trimmed[stream] = one.trimmed
        self.result.rows += rows
        acked = self.small.acked.get(stream, 0)
        for gap in gaps:
            if gap.reason == DAMAGED and gap not in declared:
                self.result.lost += max(0, gap.last - max(gap.first - 1, acked))
                self.result.gaps.append(f"{stream[0]}:{stream[1]}:{gap.first}-{gap.last}")

    def _found(self, stream: Stream) -> Iterator[Found]:
        for seq, page, number, row_id in self.scratch.execute(
            "SELECT seq, page, number, id FROM found WHERE epoch=? AND lane=? ORDER BY seq, page, number", stream
        ):
            row = _row(self.carver.read(page, number))
            raw, row_hash = (b"", b"") if row is None else (row_bytes(row[0]), row[1])
            yield Found(seq, raw, row_hash, (page, number, row_id))

    def build(self, connection: sqlite3.Connection, most_bytes: int) -> None:
        """Write it all. Rows in the order they were written; those for which there is no room leave gaps."""
        with transaction(connection):
            self._put_epochs(connection)
            connection.executemany(
                "INSERT OR IGNORE INTO gaps (epoch, lane, first, last, reason, hash) VALUES (?, ?, ?, ?, ?, ?)",
                [(*stream, gap.first, gap.last, gap.reason, gap.hash) for stream, gap in self.gaps],
            )
            connection.executemany(
                "INSERT INTO cursors (epoch, lane, acked, trimmed, trimmed_hash) VALUES (?, ?, ?, ?, ?)",
                [(*stream, seq, seq, end_hash) for stream, (seq, end_hash) in self.trimmed.items()],
            )
            left = {"facts": put_facts(connection, self.small), "slots": put_slots(connection, self.small)}
        self.result.anything = bool(self.ends or self.gaps or self.small.facts or self.small.slots)
        most_pages: int = connection.execute("PRAGMA max_page_count").fetchone()[0]
        page_bytes: int = connection.execute("PRAGMA page_size").fetchone()[0]
        self._put_rows(connection, min(most_pages, most_bytes // page_bytes))
        with transaction(connection):
            left["intents"] = put_intents(connection, self.small)
        for table in self.small.unreadable:
            left[table] = left.get(table, 0) + 1
        self.result.left_out = {table: count for table, count in left.items() if count}

    def _put_rows(self, connection: sqlite3.Connection, most_pages: int) -> None:
        kept = self.scratch.execute("SELECT epoch, lane, page, number, hash FROM kept ORDER BY id, epoch, lane, seq")
        while part := list(self._part(kept)):
            with transaction(connection):
                insert(connection, part)
            while used_pages(connection) > HIGH_WATER * most_pages:
                with transaction(connection):
                    if not make_room(connection):
                        break

    def _part(self, kept: Iterator[tuple[str, str, int, int, bytes]]) -> Iterator[Entry]:
        size = 0
        for epoch, lane, page, number, row_hash in islice(kept, 2_000):
            found = _row(self.carver.read(page, number))
            if found is None:
                raise RuntimeError("a row that was proven can't be read again")
            row = found[0]
            yield entry(epoch, lane, row, row_hash)
            size += len(row.body)
            if size > _PART_BYTES:
                return

    def _put_epochs(self, connection: sqlite3.Connection) -> None:
        """Those that anything is left of, and the newest one: the order of the next is above its."""
        wanted = {epoch for epoch, _ in self.ends}
        orders: dict[str, int] = {}
        for epoch, seen in sorted(self.epochs.items(), key=lambda each: -(each[1].signed or 0)):
            order = seen.signed or next((order for order, _ in seen.orders.most_common(1)), None)
            if order is not None and order not in orders.values():
                orders[epoch] = order
        if orders:
            wanted.add(max(orders, key=lambda epoch: orders[epoch]))
        for epoch in sorted(wanted - orders.keys(), key=lambda epoch: self.epochs[epoch].first_id):
            orders[epoch] = max(orders.values(), default=0) + 1
        for epoch in wanted:
            lasts = [self.ends.get((epoch, lane), 0) for lane in LANES]
            connection.execute(
                "INSERT INTO epochs (epoch, ord, started_at, alarm, decision, telemetry) VALUES (?, ?, ?, ?, ?, ?)",
                (epoch, orders[epoch], self.epochs[epoch].started_at, *lasts),
            )


def _row(values: list[Value] | None) -> tuple[Row, bytes] | None:
    """A row of the journal and the hash that stands beside it; None where these values are no row's."""
    if values is None or len(values) != _COLUMNS:
        return None
    _, _, _, seq, at, kind, agent, subject, label, score, ref, body, row_hash = values
    if not (isinstance(seq, int) and isinstance(at, int) and isinstance(row_hash, bytes)):
        return None
    if not (isinstance(kind, str) and isinstance(agent, str) and isinstance(body, str)):
        return None
    if isinstance(score, str | bytes):
        return None
    texts = (subject, label, ref)
    if not all(text is None or isinstance(text, str) for text in texts):
        return None
    number = None if score is None else float(score)
    return Row(seq, at, kind, agent, subject, label, number, ref, body), row_hash  # type: ignore[arg-type]


def _is_epoch(value: object) -> bool:
    return isinstance(value, str) and len(value) == 16 and set(value) <= set("0123456789abcdef")
