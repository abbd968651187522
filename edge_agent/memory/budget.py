"""How the bytes of `disk.journal_mb` are divided: the file, its WAL, the WAL's index. Arithmetic and nothing else.

SQLite bounds only the file (`max_page_count`). The WAL grows with every transaction for as long as a reader holds an
older state of the file, so it gets a share of its own, and `edge_agent.memory.room` keeps every transaction inside it.
"""

from dataclasses import dataclass

PAGE_BYTES = 1024
"""Of a new file; an older one keeps what it was made with. A commit writes each page it changed as a whole, so small
pages wear a disk less. Source: docs/performance.md, Wear."""

MIN_BUDGET_BYTES = 16 * 1024 * 1024
"""The least that a site file may give."""

WAL_SHARE = 4
MAX_WAL_BYTES = 16 * 1024 * 1024
"""The WAL gets a fourth of the budget, at most this much: more of it saves hardly a write."""

_WAL_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_INDEX_BLOCK_BYTES, _INDEX_BLOCK_FRAMES, _INDEX_HEADER_FRAMES = 32_768, 4096, 34
"""Source: https://sqlite.org/walformat.html, sections 2 and 2.3."""

_MAX_CACHE_BYTES = 2 * 1024 * 1024
"""SQLite's own default."""

FULL = 0.95
"""The writer itself evicts above this share: it was faster than the keeper."""

_RESERVE = 0.02
"""The share that no record may use: acknowledgements, gaps and evictions still fit into a file that is full."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The parts of a budget, in pages of the file; a frame of the WAL holds one page."""

    total_bytes: int
    wal_bytes: int
    frames: int
    """What the WAL may hold."""
    checkpoint_frames: int
    """After so many SQLite folds the WAL into the file, and begins to write it anew."""
    cache_pages: int
    """What a transaction may have changed without SQLite having written it into the WAL yet."""
    transaction_pages: int
    """The most that one transaction may change."""
    step_pages: int
    """What one step of eviction is meant to change; three times as much still fits."""
    pages: int
    """The most the file may hold: `max_page_count`."""

    @property
    def full_pages(self) -> int:
        """The writer evicts above it."""
        return int(self.pages * FULL)

    @property
    def record_pages(self) -> int:
        """No record is written above it."""
        return int(self.pages * (1 - _RESERVE))


def divide(total_bytes: int, page_bytes: int = PAGE_BYTES) -> Budget:
    """The parts of a budget of `total_bytes` for a file whose pages have `page_bytes`."""
    wal_bytes = min(total_bytes // WAL_SHARE, MAX_WAL_BYTES)
    frames = (wal_bytes - _WAL_HEADER_BYTES) // frame_bytes(page_bytes)
    index_bytes = _INDEX_BLOCK_BYTES * (1 + (frames + _INDEX_HEADER_FRAMES) // _INDEX_BLOCK_FRAMES)
    cache_pages = min(_MAX_CACHE_BYTES // page_bytes, frames // 8)
    return Budget(
        total_bytes,
        wal_bytes,
        frames,
        frames // 2,
        cache_pages,
        frames - cache_pages,
        (frames - cache_pages) // 3,
        (total_bytes - wal_bytes - index_bytes) // page_bytes,
    )


def frame_bytes(page_bytes: int) -> int:
    """A page with its header in the WAL."""
    return page_bytes + _FRAME_HEADER_BYTES
