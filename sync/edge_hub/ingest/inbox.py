"""What came from sites and waits for the ingest thread: bounded in bytes, taken all at once."""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

MAX_BYTES = 64 * 1024 * 1024
"""Beyond it messages are dropped; sites send again whatever is not acknowledged."""

MAX_JOURNAL_BYTES_A_SITE = 4 * 1024 * 1024
"""Twice a site's window: one that sends more, against the protocol, must not keep the others waiting."""

_OVERHEAD_BYTES = 200
"""Of an entry, so that empty messages are bounded too."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A message from a site: the document's name in the topic, its bytes, and whether it is an old retained one."""

    site: str
    what: str
    payload: bytes
    retained: bool = False


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """The hub's link to its broker came or went, and with it these sites; None: all."""

    up: bool
    sites: frozenset[str] | None = None


Item = Heard | LinkChanged


class Inbox:
    """Filled by the link's thread, emptied by the ingest thread."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._journal_bytes: dict[str, int] = {}
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: Item) -> bool:
        """Let it wait; at once. False: too much waits, or too many batches of this site; it is dropped."""
        with self._changed:
            if isinstance(item, Heard) and not self._has_room(item):
                return False
            self._count(item, 1)
            self._items.append(item)
            self._changed.notify()
        return True

    def take(self, most: int) -> list[Item]:
        """Wait until something is here, then take up to `most` of it, oldest first; empty once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            if self._closed:
                return []
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            for item in taken:
                self._count(item, -1)
        return taken

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        return len(self._items)

    def put_back(self, items: Sequence[Item]) -> None:
        """What was taken and could not be handled is taken again, first and in the same order."""
        with self._changed:
            self._items.extendleft(reversed(items))
            for item in items:
                self._count(item, 1)

    def put_last(self, item: Heard) -> None:
        """The others go first. A document is dropped where a newer one of its kind waits: only the newest counts."""
        with self._changed:
            if not any(
                isinstance(each, Heard) and (each.site, each.what) == (item.site, item.what) for each in self._items
            ):
                self._items.append(item)
                self._count(item, 1)

    def close(self) -> None:
        """End the taker's waiting. What still waits was not acknowledged, so it will come again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self, item: Heard) -> bool:
        if item.what == "journal" and self._journal_bytes.get(item.site, 0) + _size(item) > MAX_JOURNAL_BYTES_A_SITE:
            return False
        return self._bytes + _size(item) <= self._max_bytes

    def _count(self, item: Item, sign: int) -> None:
        self._bytes += sign * _size(item)
        if isinstance(item, Heard) and item.what == "journal":
            waits = self._journal_bytes.get(item.site, 0) + sign * _size(item)
            self._journal_bytes[item.site] = waits
            if not waits:
                del self._journal_bytes[item.site]


def _size(item: Item) -> int:
    return _OVERHEAD_BYTES + (len(item.payload) if isinstance(item, Heard) else 0)
