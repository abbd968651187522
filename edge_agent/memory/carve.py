"""Reads a damaged SQLite file without SQLite: every page by itself, whatever its neighbours or its schema are.

Finds rows of tables in their leaf pages, also in pages that were freed since. Whether a row is true is for its reader
to know: the journal's hash chain proves its own. Source: https://sqlite.org/fileformat2.html, sections 1.6, 2.1 and 4.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from edge_agent.memory.budget import PAGE_BYTES

MAX_PAYLOAD_BYTES = 1024 * 1024
"""No row of ours is larger: a length above it is damage."""

_TABLE_LEAF = 0x0D
_FILE_HEADER_BYTES = 100
_WAL_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_SAMPLE_BYTES, _SAMPLES = 65_536, 16
"""Places in the file that are read with each page size that it may have: the same bytes with each."""

_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
"""Bytes of a value by its serial type; above them are texts and blobs."""

_NO_TYPES = (10, 11)

Value = int | float | str | bytes | None


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a row stands: a page, and the number of the row in it; and its rowid."""

    page: int
    number: int
    rowid: int


class Carver:
    """A file and its WAL, page by page. Only reads; use it in a `with`."""

    def __init__(self, path: Path, columns: int) -> None:
        """`columns` of the table that is looked for: by its rows the size of a page is told, were it damaged too."""
        self._fd = os.open(path, os.O_RDONLY)
        self._size = os.fstat(self._fd).st_size
        self._wal_fd = _open(path.with_name(f"{path.name}-wal"))
        self._wal_size = os.fstat(self._wal_fd).st_size if self._wal_fd is not None else 0
        self._newer: dict[int, int] = {}
        self._last: tuple[int, bytes, list[int]] = (0, b"", [])
        self._page_bytes = 0
        self._suppose(self._find_page_size(columns))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        os.close(self._fd)
        if self._wal_fd is not None:
            os.close(self._wal_fd)

    def cells(self) -> Iterator[Cell]:
        """Every row of every table, in the order of pages; for `read`."""
        for page in range(1, self._pages() + 1):
            data, offsets = self._leaf(page)
            for number, offset in enumerate(offsets):
                start, rowid = _varint(data, _varint(data, offset)[0])
                if start:
                    yield Cell(page, number, rowid)

    def read(self, page: int, number: int, most: int | None = None) -> list[Value] | None:
        """The values of a row (the first `most`, not following it into other pages); None where it is none."""
        data, offsets = self._leaf(page)
        if number >= len(offsets):
            return None
        start, size = _varint(data, offsets[number])
        start, _ = _varint(data, start)
        if not 0 < size <= MAX_PAYLOAD_BYTES:
            return None
        payload = self._payload(data, start, size, whole=most is None)
        return None if payload is None else _values(payload, most)

    def _pages(self) -> int:
        return max(self._size // self._page_bytes, max(self._newer, default=0))

    def _find_page_size(self, columns: int) -> int:
        named = int.from_bytes(_pread(self._fd, 2, 16), "big")
        in_wal = int.from_bytes(self._wal(8, 4), "big")
        sizes = dict.fromkeys((65536 if named == 1 else named, in_wal, PAGE_BYTES, 4096))
        return max(filter(_is_page_size, sizes), key=lambda size: self._try(size, columns))

    def _suppose(self, page_bytes: int) -> None:
        self._page_bytes, self._last = page_bytes, (0, b"", [])
        self._newer = self._newer_pages()

    def _try(self, page_bytes: int, columns: int) -> int:
        """How many rows with so many columns there are if this is the size of a page."""
        self._suppose(page_bytes)
        count, blocks = 0, self._pages() * page_bytes // _SAMPLE_BYTES + 1
        each = _SAMPLE_BYTES // page_bytes
        places = range(0, blocks, max(1, blocks // _SAMPLES))
        for page in (block * each + at for block in places for at in range(1, each + 1)):
            for number in range(len(self._leaf(page)[1])):
                values = self.read(page, number, columns + 1)
                count += values is not None and len(values) == columns
        return count

    def _newer_pages(self) -> dict[int, int]:
        """Where in the WAL the newest committed copy of a page is. Frames behind one that is damaged count too.

        Their checksums are not looked at: who reads a row knows whether it is true.
        """
        salts = self._wal(16, 8)
        found: dict[int, int] = {}
        committed: dict[int, int] = {}
        offset, step = _WAL_HEADER_BYTES, _FRAME_HEADER_BYTES + self._page_bytes
        while offset + step <= self._wal_size:
            header = self._wal(offset, _FRAME_HEADER_BYTES)
            page, commit = struct.unpack(">II", header[:8])
            if header[8:16] == salts and 0 < page < 2**31:
                found[page] = offset + _FRAME_HEADER_BYTES
                if commit:
                    committed.update(found)
                    found = {}
            offset += step
        return {page: at for page, at in committed.items() if page * self._page_bytes <= self._size + self._wal_size}

    def _wal(self, offset: int, size: int) -> bytes:
        return b"" if self._wal_fd is None else _pread(self._wal_fd, size, offset)

    def _page(self, page: int) -> bytes:
        at = self._newer.get(page)
        if at is not None:
            return self._wal(at, self._page_bytes)
        return _pread(self._fd, self._page_bytes, (page - 1) * self._page_bytes)

    def _leaf(self, page: int) -> tuple[bytes, list[int]]:
        """A page and where the rows in it begin; none where it is no leaf of a table."""
        if self._last[0] != page:
            data = self._page(page)
            self._last = (page, data, _offsets(data, _FILE_HEADER_BYTES if page == 1 else 0))
        return self._last[1], self._last[2]

    def _payload(self, data: bytes, start: int, size: int, whole: bool) -> bytes | None:
        usable = self._page_bytes
        local = size
        if size > usable - 35:
            least = (usable - 12) * 32 // 255 - 23
            local = least + (size - least) % (usable - 4)
            if local > usable - 35:
                local = least
        payload = data[start : start + local]
        if len(payload) < local:
            return None
        if local == size or not whole:
            return payload
        parts, left = [payload], size - local
        following = data[start + local : start + local + 4]
        while left > 0:
            page = int.from_bytes(following, "big")
            more = self._page(page) if 0 < page <= self._pages() else b""
            if len(more) < self._page_bytes:
                return None
            parts.append(more[4 : 4 + left])
            left, following = left - len(parts[-1]), more[:4]
        return b"".join(parts)


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None


def _pread(fd: int, size: int, offset: int) -> bytes:
    try:
        return os.pread(fd, size, offset)
    except OSError:  # a sector that the disk can't read any more
        return b""


def _is_page_size(size: int) -> bool:
    return 512 <= size <= 65536 and size & (size - 1) == 0


def _offsets(data: bytes, start: int) -> list[int]:
    if len(data) < start + 8 or data[start] != _TABLE_LEAF:
        return []
    count = int.from_bytes(data[start + 3 : start + 5], "big")
    if start + 8 + 2 * count > len(data):
        count = (len(data) - start - 8) // 2
    found = struct.unpack_from(f">{count}H", data, start + 8)
    return [offset for offset in found if start + 8 < offset < len(data) - 2]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Where the number at `at` ends, and the number; (0, 0) where the data ends before it."""
    if not 0 < at <= len(data):
        return 0, 0
    value = 0
    for end, byte in enumerate(data[at : at + 8], at + 1):
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return end, value
    if at + 9 > len(data):
        return 0, 0
    value = value << 8 | data[at + 8]
    return at + 9, value - (1 << 64) if value >= 1 << 63 else value


def _values(payload: bytes, most: int | None) -> list[Value] | None:
    data = payload
    if not data or data[0] >= 0x80 or data[0] > len(data):  # no table of ours has a header of more bytes
        return None
    at, end = 1, data[0]
    values: list[Value] = []
    value_at = end
    while at < end and (most is None or len(values) < most):
        kind = data[at]
        at += 1
        if kind >= 0x80:
            at, kind = _varint(data, at - 1)
        if not 0 < at <= end or kind < 0 or kind in _NO_TYPES:
            return None
        size = (kind - 12) // 2 if kind >= 12 else _SIZES[kind]
        raw = data[value_at : value_at + size]
        if len(raw) < size:
            return None
        value_at += size
        try:
            values.append(_value(kind, raw))
        except UnicodeDecodeError:
            return None
    return values


def _value(kind: int, raw: bytes) -> Value:
    if kind == 0:
        return None
    if kind == 7:
        value: float = struct.unpack(">d", raw)[0]
        return value
    if kind < 10:
        return kind - 8 if kind >= 8 else int.from_bytes(raw, "big", signed=True)
    return raw.decode() if kind % 2 else raw
