"""The thread that publishes desired documents, so that thousands of them never fill the link's queue."""

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy import select

from edge_hub.releases import envelope
from edge_hub.schema import desired
from edge_hub.store import Store

log = logging.getLogger(__name__)

Publish = Callable[[str, bytes], bool]
"""Site and envelope; returns whether the broker has it."""

AGAIN_S = 10.0
"""After a document that could not be published."""


class Speaker:
    """`say` a site's desired document, or all of them. What fails is said again, and holds up no other site."""

    def __init__(self, store: Store, publish: Publish, again_s: float = AGAIN_S) -> None:
        self._store, self._publish, self._again_s = store, publish, again_s
        self._pending: dict[str | None, float] = {}  # when each may be said; None: everybody's
        self._changed = threading.Condition()
        self._closed = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="speaker", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End after the document that is being published."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def say(self, site: str | None) -> None:
        """Publish this site's document, as stored then; None: everybody's. One that waits already waits once."""
        with self._changed:
            self._pending[site] = 0.0
            self._changed.notify()

    def _run(self) -> None:
        while (wish := self._wait()) is not None:
            (site,) = wish
            try:
                said = self._say_all() if site is None else self._say(site)
            except Exception:  # the thread must live
                log.exception("desired_failed", extra={"site": site})
                said = False
            if said:
                self._failing = False
                continue
            if not self._failing:  # one line is enough while the link or the database is away
                self._failing = True
                log.warning("desired_not_published", extra={"site": site, "again_s": self._again_s})
            with self._changed:  # where it was wished for anew meanwhile, that wish counts
                self._pending.setdefault(site, time.monotonic() + self._again_s)

    def _wait(self) -> tuple[str | None] | None:
        """The next site whose document is due, taken out; None once closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                for site, due_at in self._pending.items():
                    if due_at <= now:
                        del self._pending[site]
                        return (site,)
                self._changed.wait(min(self._pending.values()) - now if self._pending else None)
        return None

    def _say_all(self) -> bool:
        with self._store.reading() as db:
            sites = db.scalars(select(desired.c.site).order_by(desired.c.site)).all()
        with self._changed:
            self._pending |= dict.fromkeys(sites, 0.0)
        return True

    def _say(self, site: str) -> bool:
        with self._store.reading() as db:
            document = envelope(db, site)
        return document is None or self._publish(site, document)
