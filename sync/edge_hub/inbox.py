"""What came from sites and waits for the ingest thread: bounded in bytes, taken all at once."""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

MAX_BYTES = 64 * 1024 * 1024
"""Beyond it messages are dropped; sites send again whatever is not acknowledged."""

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
    """The hub's link to its broker came or went."""

    up: bool


Item = Heard | LinkChanged


class Inbox:
    """Filled by the link's thread, emptied by the ingest thread."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: Item) -> bool:
        """Let it wait; at once. False: too much waits, it is dropped."""
        size = _size(item)
        with self._changed:
            if isinstance(item, Heard) and self._bytes + size > self._max_bytes:
                return False
            self._bytes += size
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
            self._bytes -= sum(_size(item) for item in taken)
        return taken

    def put_back(self, items: Sequence[Item]) -> None:
        """What was taken and could not be handled is taken again, first and in the same order."""
        with self._changed:
            self._items.extendleft(reversed(items))
            self._bytes += sum(_size(item) for item in items)

    def put_last(self, item: Heard) -> None:
        """The others go first. A document is dropped where a newer one of its kind waits: only the newest counts."""
        with self._changed:
            if not any(
                isinstance(each, Heard) and (each.site, each.what) == (item.site, item.what) for each in self._items
            ):
                self._items.append(item)
                self._bytes += _size(item)

    def close(self) -> None:
        """End the taker's waiting. What still waits was not acknowledged, so it will come again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _size(item: Item) -> int:
    return _OVERHEAD_BYTES + (len(item.payload) if isinstance(item, Heard) else 0)
