"""The chunk thread: runs the pure `ChunkSender` over the blobs, the link, and the table of artifacts."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from sqlalchemy import select

from edge_hub.database.schema import artifacts
from edge_hub.database.store import Store
from edge_hub.delivery.blobs import Blobs
from edge_hub.metrics import Metrics
from edge_sync.chunks import ChunkSender, Send, chunk_message
from edge_sync.documents import Want
from edge_sync.release import CHUNK_SIZE_BYTES
from edge_sync.topics import fleet_chunk, site_chunk

log = logging.getLogger(__name__)

BYTE_RATE = 16 * 1024 * 1024
"""Bytes of chunks a second: what a slow machine's broker passes on without its queues growing."""

PASSED_ON_RATE = 256 * 1024 * 1024
"""Bytes of chunks a second that a broker passes on to all sites together, on one core. Source: bench/delivery.py."""

MOST_ASKED = 1000
"""Wishes that may wait to be looked up; sites ask again for what is dropped beyond it."""

MOST_UNKNOWN = 1000
"""Digests remembered as unknown: the latest."""

_LOOK_AGAIN_S = 10.0
"""An artifact that was unknown may have been uploaded since."""


class Sender:
    """`want` and `gone` may be called from any thread. `publish` takes topic and payload, QoS 0."""

    def __init__(self, store: Store, blobs: Blobs, metrics: Metrics, publish: Callable[[str, bytes], bool]) -> None:
        self._store, self._blobs, self._metrics, self._publish = store, blobs, metrics, publish
        self._chunks = ChunkSender(byte_rate=BYTE_RATE, passed_on_rate=PASSED_ON_RATE)
        self._asked: dict[tuple[str, str], Want] = {}  # by site and digest: a newer wish replaces an older one
        self._sizes: dict[str, int] = {}
        self._unknown: dict[str, float] = {}  # when it may be looked up again
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
        """A site lacks chunks; returns at once. What no artifact here has is left out."""
        with self._changed:
            if len(self._asked) < MOST_ASKED or (site, want.digest) in self._asked:
                self._asked[site, want.digest] = want
                self._changed.notify()

    def gone(self, site: str) -> None:
        """The site's link is down."""
        with self._changed:
            self._asked = {key: want for key, want in self._asked.items() if key[0] != site}
            self._chunks.gone(site)

    def _run(self) -> None:
        while (step := self._wait()) is not None:
            try:
                if isinstance(step, Send):
                    self._send(step)
                else:
                    self._take(step)
            except Exception as error:  # the thread must live: what was not sent is asked for again
                what = {"digest": step.digest, "chunk": step.index} if isinstance(step, Send) else {}
                log.exception("chunk_failed" if what else "wants_failed", extra=what | {"reason": str(error)})

    def _wait(self) -> Send | Mapping[tuple[str, str], Want] | None:
        """The next chunk to send, or wishes to look up; None once closed."""
        with self._changed:
            while not self._closed:
                if self._asked:
                    return dict(self._asked)
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

    def _take(self, asked: Mapping[tuple[str, str], Want]) -> None:
        """Look up the artifacts, and pass on the wishes for those there are."""
        try:
            self._look_up(digest for _, digest in asked)
        finally:  # where the database refused, the sites ask again
            with self._changed:
                for (site, digest), want in asked.items():
                    if self._asked.get((site, digest)) is not want:
                        continue  # the site left meanwhile, or asked anew
                    del self._asked[site, digest]
                    if digest in self._sizes:
                        missing = _clip(want.missing, _chunks_of(self._sizes[digest]))
                        self._chunks.want(site, want.model_copy(update={"missing": missing}), time.monotonic())

    def _look_up(self, digests: Iterable[str]) -> None:
        now = time.monotonic()
        new = {digest for digest in digests if digest not in self._sizes and self._unknown.get(digest, now) <= now}
        if not new:
            return
        with self._store.reading() as db:
            query = select(artifacts.c.digest, artifacts.c.size).where(artifacts.c.digest.in_(new))
            found = {row.digest: row.size for row in db.execute(query)}
        self._sizes |= found
        for digest in new - found.keys():
            if self._unknown.pop(digest, None) is None:
                log.warning("unknown_artifact_wanted", extra={"digest": digest})
            self._unknown[digest] = now + _LOOK_AGAIN_S
        for digest in list(self._unknown)[:-MOST_UNKNOWN]:
            del self._unknown[digest]


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
