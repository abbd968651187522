"""sync/SPEC.md, section Journal sync, the hub: what one batch means to its stream."""

from edge_sync.batch import Batch, Header
from edge_sync.ingest import AckOnly, Fork, Prefix, Store, judge
from edge_sync.rows import Gap, Row, chain, chain_start, row_bytes

EPOCH, LANE = "00112233aabbccdd", "decision"


class Stream:
    """A stream as its site wrote it; `batch` cuts any piece out of it."""

    def __init__(self, length: int, twist: int = 0) -> None:
        self.rows = [
            Row(seq, seq, "event", "a", None, "other" if twist and seq >= twist else None, None, None, "{}")
            for seq in range(1, length + 1)
        ]
        self.hashes = [chain_start(EPOCH, LANE)]
        for row in self.rows:
            self.hashes.append(chain(self.hashes[-1], row_bytes(row)))

    def batch(self, first: int, last: int, gap: tuple[int, int] | None = None) -> Batch:
        kept = [r for r in self.rows[first - 1 : last] if gap is None or not gap[0] <= r.seq <= gap[1]]
        gaps = () if gap is None else (Gap(*gap, "evicted", self.hashes[gap[1]]),)
        before = bytes(32) if gap is not None and gap[0] == first else self.hashes[first - 1]
        header = Header(1, EPOCH, LANE, first, last, 0, b"", before, self.hashes[last])
        return Batch(header, tuple(kept), tuple(self.hashes[r.seq] for r in kept), gaps)

    def prefix(self, high: int) -> Prefix:
        return Prefix(high, self.hashes[high])


def none_held(_: int) -> bytes | None:
    return None


def test_the_next_batch_is_stored_and_moves_the_prefix() -> None:
    s = Stream(10)
    verdict = judge(s.prefix(4), s.batch(5, 8), none_held)
    assert isinstance(verdict, Store)
    assert [row.seq for row, _ in verdict.rows] == [5, 6, 7, 8]
    assert verdict.prefix == s.prefix(8)


def test_a_batch_behind_a_hole_stores_nothing_and_asks_to_go_back() -> None:
    s = Stream(10)
    assert judge(s.prefix(4), s.batch(6, 8), none_held) == AckOnly(4)


def test_a_batch_again_is_acknowledged_and_stored_once() -> None:
    s = Stream(10)
    assert judge(s.prefix(8), s.batch(5, 8), none_held) == AckOnly(8)
    assert judge(s.prefix(8), s.batch(2, 5), lambda seq: s.hashes[seq]) == AckOnly(8)


def test_an_overlapping_batch_stores_only_what_is_new() -> None:
    s = Stream(10)
    verdict = judge(s.prefix(6), s.batch(5, 8), none_held)
    assert isinstance(verdict, Store)
    assert [row.seq for row, _ in verdict.rows] == [7, 8]


def test_the_same_numbers_with_other_bytes_are_a_fork() -> None:
    ours, theirs = Stream(10), Stream(10, twist=4)
    assert isinstance(judge(ours.prefix(6), theirs.batch(7, 8), none_held), Fork)
    assert isinstance(judge(ours.prefix(6), theirs.batch(3, 8), none_held), Fork)
    assert isinstance(judge(ours.prefix(8), theirs.batch(3, 8), none_held), Fork)
    assert isinstance(judge(ours.prefix(8), theirs.batch(3, 6), lambda seq: ours.hashes[seq]), Fork)


def test_a_gap_is_stored_with_the_rows_after_it() -> None:
    s = Stream(10)
    verdict = judge(s.prefix(4), s.batch(5, 9, gap=(5, 7)), none_held)
    assert isinstance(verdict, Store)
    assert [row.seq for row, _ in verdict.rows] == [8, 9]
    assert [(g.first, g.last) for g in verdict.gaps] == [(5, 7)]


def test_rows_the_hub_already_has_are_not_made_a_gap() -> None:
    """The site evicted rows 3 to 7 before it learned that the hub holds up to 5."""
    s = Stream(10)
    verdict = judge(s.prefix(5), s.batch(3, 9, gap=(3, 7)), none_held)
    assert isinstance(verdict, Store)
    assert [(g.first, g.last) for g in verdict.gaps] == [(6, 7)]
    assert [row.seq for row, _ in verdict.rows] == [8, 9]
    assert verdict.prefix == s.prefix(9)
