"""The thread that publishes desired documents, so that thousands of them never fill the link's queue."""

import logging
import queue
import threading
from collections.abc import Callable

from edge_hub.releases import envelopes
from edge_hub.store import Store

log = logging.getLogger(__name__)

Publish = Callable[[str, bytes], bool]
"""Site and envelope; returns whether the broker has it."""


class Speaker:
    """`say` a site's desired document, or all of them. What fails is said again when the link is back."""

    def __init__(self, store: Store, publish: Publish) -> None:
        self._store, self._publish = store, publish
        self._wishes: queue.SimpleQueue[tuple[str | None] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="speaker", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End after the document that is being published."""
        self._stopping.set()
        self._wishes.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def say(self, site: str | None) -> None:
        """Publish this site's document, as stored then; None: everybody's."""
        self._wishes.put((site,))

    def _run(self) -> None:
        while (wish := self._wishes.get()) is not None:
            try:
                self._say_now(wish[0])
            except Exception:  # the thread must live: the documents are said again after the next hello
                log.exception("desired_failed", extra={"site": wish[0]})

    def _say_now(self, site: str | None) -> None:
        with self._store.reading() as db:
            found = envelopes(db, site)
        for name, envelope in found:
            if self._stopping.is_set():
                return
            if not self._publish(name, envelope):
                log.warning("desired_not_published", extra={"site": name})
                return
