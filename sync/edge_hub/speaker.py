"""The thread that publishes what sites should be told, so that thousands of documents never fill the link's queue."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from edge_hub.database.store import Store
from edge_sync.topics import down

log = logging.getLogger(__name__)

Publish = Callable[[str, bytes, bool], bool]
"""Topic, envelope, and whether the broker keeps it; returns whether the broker has it."""

AGAIN_S = 10.0
"""After a document that could not be published."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One sort of document that sites are told, named as its topic is."""

    compose: Callable[[Connection, str], bytes | None]
    """The site's document as it is now; None where there is nothing to say."""
    everyone: Callable[[Connection], Sequence[str]]
    """The sites that are told where all are."""
    retain: bool = False
    topic: str | None = None
    """Where it is said once, to the whole fleet; None: to each site, as `down/` and its name."""


Wish = tuple[str, str | None]
"""A subject, and the site that is to be told; None: everyone."""


class Speaker:
    """`say` a site's document, or everyone's. What fails is said again, and holds up no other site."""

    def __init__(
        self, store: Store, publish: Publish, subjects: Mapping[str, Subject], again_s: float = AGAIN_S
    ) -> None:
        self._store, self._publish, self._subjects, self._again_s = store, publish, subjects, again_s
        self._pending: dict[Wish, float] = {}  # when each may be said
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

    def say(self, subject: str, site: str | None) -> None:
        """Publish this site's document, as it is then; None: everyone's. One that waits already waits once."""
        with self._changed:
            self._pending[subject, site] = 0.0
            self._changed.notify()

    def _run(self) -> None:
        while (wish := self._wait()) is not None:
            subject, site = wish
            try:
                said = self._say_all(subject) if site is None else self._say(subject, site)
            except Exception:  # the thread must live
                log.exception("document_failed", extra={"document": subject, "site": site})
                said = False
            if said:
                self._failing = False
                continue
            if not self._failing:  # one line is enough while the link or the database is away
                self._failing = True
                extra = {"document": subject, "site": site, "again_s": self._again_s}
                log.warning("document_not_published", extra=extra)
            with self._changed:  # where it was wished for anew meanwhile, that wish counts
                self._pending.setdefault(wish, time.monotonic() + self._again_s)

    def _wait(self) -> Wish | None:
        """The next document that is due, taken out; None once closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                for wish, due_at in self._pending.items():
                    if due_at <= now:
                        del self._pending[wish]
                        return wish
                self._changed.wait(min(self._pending.values()) - now if self._pending else None)
        return None

    def _say_all(self, subject: str) -> bool:
        with self._store.reading() as db:
            sites = self._subjects[subject].everyone(db)
        with self._changed:
            self._pending |= dict.fromkeys([(subject, site) for site in sites], 0.0)
        return True

    def _say(self, subject: str, site: str) -> bool:
        spoken = self._subjects[subject]
        with self._store.reading() as db:
            document = spoken.compose(db, site)
        if document is None:
            return True
        if not self._publish(spoken.topic or down(site, subject), document, spoken.retain):
            return False
        if spoken.retain:  # where several processes say the same, the last to say it sees that it is still so
            with self._store.reading() as db:
                if spoken.compose(db, site) != document:
                    self.say(subject, site)
        return True
