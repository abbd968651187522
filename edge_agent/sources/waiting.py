"""What came in and waits for the agent: bounded in number and in bytes, shared by a source's threads."""

import threading
import time
from collections import deque
from typing import Generic, TypeVar

MAX_WAITING_BYTES = 8 * 1024 * 1024
"""What one source may hold for its agent, whatever number its queue allows: a site has little memory."""

T = TypeVar("T")


class Waiting(Generic[T]):
    """A queue with one reader that can be full."""

    def __init__(self, most: int, most_bytes: int = MAX_WAITING_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._size_bytes = 0
        self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()

    def push(self, item: T, size_bytes: int) -> None:
        """Add an item; where there is no room, the oldest are dropped and counted."""
        with self._changed:
            self._append(item, size_bytes)
            while len(self._items) > 1 and self._over():
                self._size_bytes -= self._items.popleft()[1]
                self._dropped += 1

    def offer(self, item: T, size_bytes: int) -> bool:
        """Add an item where there is room; else False, and nothing has changed."""
        with self._changed:
            full = len(self._items) >= self._most or self._size_bytes + size_bytes > self._most_bytes
            if full and self._items:
                return False
            self._append(item, size_bytes)
            return True

    def take(self, most: int, timeout_s: float) -> list[T]:
        """Wait up to `timeout_s` for an item, then return the oldest, at most `most`."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while not self._items and not self._closed:
                left_s = until - time.monotonic()
                if left_s <= 0:
                    return []
                self._changed.wait(left_s)
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._size_bytes -= sum(size for _, size in taken)
        return [item for item, _ in taken]

    def dropped(self) -> int:
        """How many were dropped since the last call."""
        with self._changed:
            count, self._dropped = self._dropped, 0
        return count

    def close(self) -> None:
        """Let a reader that waits go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _append(self, item: T, size_bytes: int) -> None:
        self._items.append((item, size_bytes))
        self._size_bytes += size_bytes
        self._changed.notify()

    def _over(self) -> bool:
        return len(self._items) > self._most or self._size_bytes > self._most_bytes
