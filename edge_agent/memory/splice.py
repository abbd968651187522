"""One stream of a damaged journal put together again: what its chain proves, and gaps for the rest. Pure.

A row is proven WHEN a hash that is known at the number before it, and its bytes, give the hash that is known at its
own: nobody hits upon that by chance, so it proves the hash before it too. A hash that was damaged is computed anew,
and proven by the row that follows it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from edge_sync.rows import ERASED, EXPIRED, Gap, chain, chain_start

DAMAGED = "damaged"
"""Reason of a gap of records that can't be read any more as they were written."""

UNKNOWN = bytes(32)
"""The hash at the end of a gap where nothing proves one: what follows is another gap, or nothing."""

_MAX_KNOTS = 6


@dataclass(frozen=True, slots=True)
class Found:
    """A row that was found, true or not: its exact bytes, the hash that stands beside them, and where that is."""

    seq: int
    raw: bytes
    hash: bytes
    where: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that is proven, and its hash."""

    found: Found
    hash: bytes


@dataclass(frozen=True, slots=True)
class Knot:
    """A hash that may be the chain's at `seq`: it is, once a row follows it. With `row` it was computed over that."""

    seq: int
    hash: bytes
    row: Found | None = None
    before: "Knot | None" = None


@dataclass(slots=True)
class Splice:
    """One stream. `run` gives what goes on; then `end` and `trimmed` say the rest."""

    epoch: str
    lane: str
    gaps: Sequence[Gap]
    """Declared ones, by number; believed where no proven row contradicts."""
    ends: Mapping[int, bytes]
    """What signed checkpoints say of the chain."""
    noted: int
    """Where it ends, were this true; 0: not known."""
    dropped: tuple[int, bytes] | None = None
    """Up to where rows were dropped after the hub acknowledged them, were this true."""
    bound: int = 2**53
    """No number is above it that nothing proves."""
    end: int = 0
    trimmed: tuple[int, bytes] | None = None
    _at: int = 0
    _knots: list[Knot] = field(default_factory=list)
    _sure: bool = True
    _loose: list[tuple[int, bytes]] = field(default_factory=list)
    """What was found behind the last proven row, and is not proven itself."""

    def run(self, found: Iterable[Found]) -> Iterator[Kept | Gap]:
        """`found` by number, several of one number where there are copies. Gives rows and gaps by number, from 1."""
        self._knots = [Knot(0, chain_start(self.epoch, self.lane))]
        for seq, copies in groupby(found, key=lambda row: row.seq):
            if seq > self._at and not self._is_gone(seq):
                yield from self._take(seq, list(copies))
        yield from self._finish()

    def _take(self, seq: int, copies: list[Found]) -> Iterator[Kept | Gap]:
        known, computed = self._known(seq - 1), []
        for row in copies:
            for knot in known:
                row_hash = chain(knot.hash, row.raw)
                if row_hash in (row.hash, self.ends.get(seq)):
                    yield from self._confirm(knot)
                    yield Kept(row, row_hash)
                    self._at, self._knots, self._sure, self._loose = seq, [Knot(seq, row_hash)], True, []
                    return
                computed.append(Knot(seq, row_hash, row, knot))
        stored = {row.hash for row in copies if len(row.hash) == len(UNKNOWN)}
        self._knots = [*computed[:_MAX_KNOTS], *(Knot(seq, each) for each in stored)]
        self._sure = False
        self._loose.append((seq, copies[0].hash))

    def _known(self, seq: int) -> list[Knot]:
        """Every hash that may be the chain's there."""
        knots = [knot for knot in self._knots if knot.seq == seq]
        if knots and self._sure:
            return knots
        told = [gap.hash for gap in self.gaps if gap.last == seq]
        if seq in self.ends:
            told.append(self.ends[seq])
        if self.dropped is not None and self.dropped[0] == seq and self._at == 0:
            told.append(self.dropped[1])
        return [*knots, *(Knot(seq, each) for each in told)]

    def _confirm(self, knot: Knot) -> Iterator[Kept | Gap]:
        """The chain's hash is this one here: what led to it is proven too."""
        if knot.row is not None and knot.before is not None:
            yield from self._confirm(knot.before)
            yield Kept(knot.row, knot.hash)
            self._at = knot.seq
        elif knot.seq > self._at:
            if self._at == 0 and self.dropped == (knot.seq, knot.hash):
                self.trimmed, self._at = self.dropped, knot.seq
            else:
                yield from self._fill(knot.seq, knot.hash)

    def _fill(self, last: int, end_hash: bytes) -> Iterator[Gap]:
        """Gaps from where it stands to `last`: those that were declared, and between them what is damaged."""
        dropped = self.dropped
        if self._at == 0 and dropped is not None and any(gap.first == dropped[0] + 1 <= last for gap in self.gaps):
            self.trimmed, self._at = dropped, dropped[0]  # two tables agree
        for gap in self.gaps:
            if gap.first <= self._at or gap.last > last:
                continue
            if gap.first > self._at + 1:
                yield self._damaged(gap.first - 1, self.ends.get(gap.first - 1, UNKNOWN))
            yield Gap(gap.first, gap.last, gap.reason, end_hash if gap.last == last else gap.hash)
            self._at = gap.last
        if self._at < last:
            yield self._damaged(last, end_hash)

    def _damaged(self, last: int, end_hash: bytes) -> Gap:
        first, self._at = self._at + 1, last
        return Gap(first, last, DAMAGED, end_hash)

    def _finish(self) -> Iterator[Gap]:
        """What is behind the last proven row: as far as anything tells of it."""
        told = {gap.last: gap.hash for gap in self.gaps} | dict(self.ends)
        if self._at == 0 and not self._loose and self.dropped is not None and self.dropped[0] <= self.bound:
            self.trimmed, self._at = self.dropped, self.dropped[0]
        supposed = [seq for seq in (*(gap.last for gap in self.gaps), self.noted) if seq <= self.bound]
        end = max([self._at, *self.ends, *supposed])
        for seq, row_hash in self._loose:
            end = seq if seq == end + 1 else end
            if seq == end and len(row_hash) == len(UNKNOWN):
                told.setdefault(seq, row_hash)
        if end > self._at:
            yield from self._fill(end, told.get(end, UNKNOWN))
        self.end = end

    def _is_gone(self, seq: int) -> bool:
        """Whether it was let go on purpose: what is left of it in a freed page does not come back."""
        return any(gap.first <= seq <= gap.last and gap.reason in (ERASED, EXPIRED) for gap in self.gaps)
