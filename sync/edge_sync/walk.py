"""A stream's chain, followed through its rows and gaps, and held against what was signed of it; pure.

Site and hub verify with the same code: they only read their tables for it, slice by slice (`edge_agent.memory.verify`,
`edge_hub.records.chain`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from edge_models.errors import RejectedError
from edge_sync import checkpoint
from edge_sync.rows import Gap, Row, chain, chain_start, record_id, row_bytes

MAX_FINDINGS = 1_000
"""Kept of one verification: where a journal is wrong throughout, more of it helps nobody."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, and exactly where."""

    epoch: str
    lane: str
    seq: int
    what: str


class Findings:
    """What was found: the first `MAX_FINDINGS`, and how many there are."""

    def __init__(self) -> None:
        self._kept: list[Finding] = []
        self.count = 0

    def add(self, epoch: str, lane: str, seq: int, what: str) -> None:
        """Note one."""
        self.count += 1
        if self.count <= MAX_FINDINGS:
            self._kept.append(Finding(epoch, lane, seq, what))

    def all(self) -> tuple[Finding, ...]:
        """Those that were kept, and a last one that counts the others."""
        more = self.count - len(self._kept)
        return (*self._kept, Finding("", "", 0, f"and {more} more")) if more else tuple(self._kept)


@dataclass(slots=True)
class Walk:
    """One stream from its beginning. After something wrong it goes on from what is there: each is found once."""

    epoch: str
    lane: str
    found: Findings
    seq: int = 0
    hash: bytes = b""
    rows: int = 0
    lost: int = 0
    """Numbers in gaps."""

    def __post_init__(self) -> None:
        self.hash = self.hash or chain_start(self.epoch, self.lane)

    def through(self, rows: Iterable[tuple[Row, object]], gaps: Sequence[Gap], end: int | None) -> None:
        """Go on through these rows, with their hashes, which follow `seq`; `gaps` are all between `seq` and the last.

        Both by number, and from one state of the tables. With `end` there are no more: the stream ends there.
        """
        at = 0
        for row, held in rows:
            at, row_hash = self._skip(gaps, at), as_hash(held)
            if row.seq <= self.seq:
                self.found.add(self.epoch, self.lane, row.seq, "the row is held though a gap says that it is gone")
                continue
            if row.seq != self.seq + 1:
                self._miss(row.seq - 1)
            elif not _follows(self.hash, row, row_hash):
                self.found.add(self.epoch, self.lane, row.seq, "the row is not what was written, or follows another")
            self.seq, self.hash, self.rows = row.seq, row_hash, self.rows + 1
        if end is not None:
            self._skip(gaps, at)
            if self.seq < end:
                self._miss(end)

    def _miss(self, last: int) -> None:
        what = f"rows {self.seq + 1} to {last} are missing, no gap says so"
        self.found.add(self.epoch, self.lane, self.seq + 1, what)

    def _skip(self, gaps: Sequence[Gap], at: int) -> int:
        """Pass the gaps that begin here, or around here; returns the first that does not."""
        while at < len(gaps) and gaps[at].first <= self.seq + 1:
            gap = gaps[at]
            if gap.last > self.seq:
                self.lost += gap.last - self.seq
                self.seq, self.hash = gap.last, gap.hash
            at += 1
        return at


@dataclass(frozen=True, slots=True)
class Held:
    """What is held where a checkpoint points: the chain's hash there (None: not known any more), and the stream's end.

    Without `end` nobody here knows where the stream should end.
    """

    hash: bytes | None
    end: int | None = None


@dataclass(slots=True)
class Signed:
    """Checkpoints, in the order of their epochs, held against what their streams are."""

    site: str | None
    """Whose they must be; None: not known."""
    key: str | None
    """The key, hex, that is the site's today; None: not known."""
    found: Findings
    count: int = 0
    _keys: dict[str, str] = field(default_factory=dict)
    """Epoch → the key of its first checkpoint."""
    _agreed: dict[tuple[str, str], int] = field(default_factory=dict)
    """Stream → up to where what is held is what was signed."""
    _wrong: set[tuple[str, str]] = field(default_factory=set)

    def look(self, epoch: str, lane: str, row: Row, held: Callable[[str, str, int], Held]) -> None:
        """Take a checkpoint, a record of this stream. `held` tells what is held at epoch, lane and number."""
        self.count += 1
        try:
            read = checkpoint.read(row.body)
        except RejectedError as error:
            self.found.add(epoch, lane, row.seq, f"the checkpoint can't be believed: {error}")
            return
        if self.site is not None and read.site != self.site:
            what = f"the checkpoint is not this site's: it is of {read.site}"
            self.found.add(epoch, lane, row.seq, what)
            return
        self._look_at_key(epoch, lane, row.seq, read)
        for ends in read.ends:
            for name, end in ends.streams.items():
                self._look_at_end(record_id(epoch, lane, row.seq), (ends.epoch, name), end, held)

    def finish(self) -> None:
        """There are no more."""
        if self.key is not None and self._keys and self.key not in self._keys.values():
            epoch = list(self._keys)[-1]
            self.found.add(epoch, "decision", 1, f"its checkpoints are not signed with the site's key {self.key}")

    def _look_at_key(self, epoch: str, lane: str, seq: int, read: checkpoint.Checkpoint) -> None:
        """A site whose disk was replaced has a new key. It begins with an epoch, and the old one does not come back."""
        first = self._keys.get(epoch)
        if first is not None:
            if first != read.key:
                what = f"the checkpoint is signed with the key {read.key}, others of its epoch with {first}"
                self.found.add(epoch, lane, seq, what)
            return
        known = list(self._keys.values())
        self._keys[epoch] = read.key
        if known and known[-1] != read.key and (read.key in known or self.key in known):
            what = f"from here, checkpoints are signed with the key {read.key}, and were signed with {known[-1]} before"
            self.found.add(epoch, lane, seq, what)

    def _look_at_end(
        self, signer: str, stream: tuple[str, str], end: checkpoint.End, held: Callable[[str, str, int], Held]
    ) -> None:
        """One place that it names. Of a stream that is not what was signed the first place is told."""
        if stream in self._wrong:
            return
        here = held(*stream, end.seq)
        agreed = self._agreed.get(stream, 0)
        if here.hash is None:
            if here.end is not None and here.end < end.seq:
                self._wrong.add(stream)
                what = f"rows {here.end + 1} to {end.seq} are missing: checkpoint {signer} names them"
                self.found.add(*stream, here.end + 1, what)
        elif here.hash.hex() != end.hash:
            self._wrong.add(stream)
            what = f"rows {agreed + 1} to {end.seq} are not those that checkpoint {signer} signed"
            self.found.add(*stream, end.seq, what)
        else:
            self._agreed[stream] = max(agreed, end.seq)


def as_hash(value: object) -> bytes:
    """What a database holds where a hash should be; empty where that is none."""
    return bytes(value) if isinstance(value, bytes | memoryview) else b""


def _follows(before: bytes, row: Row, row_hash: bytes) -> bool:
    try:
        return chain(before, row_bytes(row)) == row_hash
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError):  # a value that no row ever had
        return False
