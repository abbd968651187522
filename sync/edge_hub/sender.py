"""The chunk thread: runs the pure `ChunkSender` over the blobs and the link."""

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy import select

from edge_hub.blobs import Blobs
from edge_hub.metrics import Metrics
from edge_hub.schema import artifacts
from edge_hub.store import Store
from edge_sync.chunks import ChunkSender, Send, chunk_message
from edge_sync.documents import Want
from edge_sync.release import CHUNK_SIZE_BYTES
from edge_sync.topics import fleet_chunk, site_chunk

log = logging.getLogger(__name__)

BYTE_RATE = 16 * 1024 * 1024
"""Bytes of chunks a second: what a slow machine's broker passes on without its queues growing."""


class Sender:
    """`want` and `gone` may be called from any thread. `publish` takes topic and payload, QoS 0."""

    def __init__(self, store: Store, blobs: Blobs, metrics: Metrics, publish: Callable[[str, bytes], bool]) -> None:
        self._store, self._blobs, self._metrics, self._publish = store, blobs, metrics, publish
        self._chunks = ChunkSender(byte_rate=BYTE_RATE)
        self._sizes: dict[str, int] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def want(self, site: str, want: Want) -> None:
        """A site lacks chunks. What no artifact here has is left out."""
        count = self._count(want.digest)
        if count is None:
            log.warning("unknown_artifact_wanted", extra={"site": site, "digest": want.digest})
            return
        clipped = want.model_copy(update={"missing": _clip(want.missing, count)})
        with self._changed:
            self._chunks.want(site, clipped, time.monotonic())
            self._changed.notify()

    def gone(self, site: str) -> None:
        """The site's link is down."""
        with self._changed:
            self._chunks.gone(site)

    def _run(self) -> None:
        while (send := self._wait()) is not None:
            try:
                self._send(send)
            except Exception:  # the thread must live: what was not sent is asked for again
                log.exception("chunk_failed", extra={"digest": send.digest, "chunk": send.index})

    def _wait(self) -> Send | None:
        """The next chunk to send; None once closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                send = self._chunks.next(now)
                if send is not None:
                    return send
                wake_at = self._chunks.wake_at(now)
                self._changed.wait(None if wake_at is None else max(0.001, wake_at - now))
        return None

    def _send(self, send: Send) -> None:
        size = self._sizes[send.digest]
        data = self._blobs.chunk(send.digest, send.index)
        message = chunk_message(send.digest, send.index, _chunks_of(size), size, data)
        topic = fleet_chunk(send.digest) if send.site is None else site_chunk(send.site, send.digest)
        if self._publish(topic, message):
            self._metrics.add("edge_hub_chunks_sent_total")
            self._metrics.add("edge_hub_chunk_bytes_total", len(message))

    def _count(self, digest: str) -> int | None:
        """How many chunks the artifact has; None where there is no such artifact."""
        if digest not in self._sizes:
            with self._store.reading() as db:
                size = db.scalar(select(artifacts.c.size).where(artifacts.c.digest == digest))
            if size is None:
                return None
            self._sizes[digest] = size
        return _chunks_of(self._sizes[digest])


def _chunks_of(size: int) -> int:
    return -(-size // CHUNK_SIZE_BYTES)


def _clip(ranges: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """The same indices without those beyond `count`, as disjoint ranges: overlapping ones would cost their sum."""
    disjoint: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        begin = max(first, disjoint[-1][1] + 1) if disjoint else first
        end = min(last, count - 1)
        if begin <= end:
            disjoint.append((begin, end))
    return disjoint
