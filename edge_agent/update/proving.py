"""A release on trial: measures it, remembers how far it is, and says when the one before has to run again.

The shell of `trial`. Used by the update thread, and by the start of the process before any model is loaded.
"""

import logging
import sqlite3
from collections.abc import Callable
from functools import partial

from edge_agent.memory.draft import JOURNAL_AGENT, Draft, to_body
from edge_agent.memory.journal import Journal
from edge_agent.memory.schema import reading
from edge_agent.records import Json
from edge_agent.update.health import HealthMeter
from edge_agent.update.slots import Slot, confirm, fallback, go_back, keep_trial, note_boot, read_slot, read_trial
from edge_agent.update.trial import Confirm, Effect, GoBack, Keep, Stay, Trial, TrialSettings
from edge_models.errors import KitError
from edge_sync.rows import Lane

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Between two looks at a release on trial."""


class Proving:
    """One site's trials, one at a time. Every `now` is in monotonic seconds."""

    def __init__(
        self,
        journal: Journal,
        meter: HealthMeter,
        settings: TrialSettings,
        running: Slot,
        now_us: Callable[[], int],
        now: float,
    ) -> None:
        """`running` is what does: where that is the active slot, the trial goes on that an earlier process began."""
        self._journal, self._meter, self._settings, self._now_us = journal, meter, settings, now_us
        self._look_at = now + LOOK_S
        self._trial: Trial | None = None
        self._due: str | None = None
        with reading(journal.path) as db:
            held, can_go_back, active = read_trial(db), fallback(db) is not None, read_slot(db, "active")
        if held is not None and active == running:
            self._trial = Trial.from_row(held.row, can_go_back, now, settings)

    @property
    def on_trial(self) -> bool:
        """Whether the release that runs is not confirmed yet."""
        return self._trial is not None

    def before(self, now: float) -> Trial:
        """To be called just before another release runs: its trial, against what runs now. Hand it to `begin`."""
        return Trial(self._meter.baseline(now), True, now, self._settings)

    def begin(self, trial: Trial, now: float) -> None:
        """The release of this trial runs now, if it is one that has to prove itself, or still has to."""
        self._meter.begin(now)
        self._due = None
        with reading(self._journal.path) as db:
            held, can_go_back = read_trial(db), fallback(db) is not None
        if held is None:  # it ran before, and is proven
            self._trial = None
            return
        row = held.row if held.row.seen is not None else trial.to_row()
        self._trial = Trial.from_row(row, can_go_back, now, self._settings)
        self._journal.later(also=lambda db: keep_trial(db, row))

    def end(self, now: float) -> None:
        """Another release runs, which needs no proof."""
        self._trial = self._due = None
        self._meter.begin(now)

    def look(self, now: float) -> str | None:
        """To be called often: why the release before has to run again, None where nothing speaks for that.

        Said again until another release runs: it may not be possible at once.
        """
        if now < self._look_at:
            return None
        self._look_at = now + LOOK_S
        self._meter.tick(now)
        if self._trial is not None and self._due is None:
            self._due = self._do(self._trial.sample(self._meter.health(now), now))
        return self._due

    def close(self) -> None:
        """Remember how far it is."""
        if self._trial is not None:
            row = self._trial.to_row()
            try:
                self._journal.write((), also=lambda db: keep_trial(db, row))
            except KitError as error:
                log.warning("trial_not_kept", extra={"reason": str(error)})

    def _do(self, effect: Effect | None) -> str | None:
        match effect:
            case Keep(row):
                self._journal.later(also=lambda db: keep_trial(db, row))
            case Confirm(steps, quiet):
                self._settle("release_confirmed", {"steps": steps, "quiet": quiet})
            case Stay(reason):
                self._settle("release_disappoints", {"reason": reason}, "alarm")
            case GoBack(reason):
                return reason
        return None

    def _settle(self, label: str, what: dict[str, Json], lane: Lane = "decision") -> None:
        self._trial = None
        draft = Draft(lane, "event", JOURNAL_AGENT, self._now_us(), to_body(what), label=label)
        self._journal.later([draft], also=confirm)


def count_boot(journal: Journal, settings: TrialSettings, now_us: Callable[[], int]) -> None:
    """At the start of a process, before anything is loaded: a release on trial that takes it down again and again goes.

    Durable on return. Raises `JournalUnavailableError`.
    """
    with reading(journal.path) as db:
        held, active, previous = read_trial(db), read_slot(db, "active"), fallback(db)
    if held is None or active is None:
        return
    boots = held.boots + 1
    what: dict[str, Json] = {"release": active.release.release, "boots": boots}
    verdict = Trial.from_row(held.row, previous is not None, 0.0, settings).booted(boots, 0.0)
    if isinstance(verdict, GoBack) and previous is not None:
        write_back(journal, verdict.reason, now_us, what | {"to": previous.release.release})
        return
    if isinstance(verdict, Stay):
        stays = Draft("alarm", "event", JOURNAL_AGENT, now_us(), to_body(what), label="release_disappoints")
        journal.write([stays], also=confirm)
        return
    draft = Draft("decision", "event", JOURNAL_AGENT, now_us(), to_body(what), label="started_on_trial")
    journal.write([draft], also=note_boot)


def write_back(journal: Journal, reason: str, now_us: Callable[[], int], what: dict[str, Json]) -> None:
    """Durably: the release before is the active one again, the other is refused. Raises `JournalUnavailableError`."""
    body = to_body(what | {"reason": reason})
    draft = Draft("alarm", "event", JOURNAL_AGENT, now_us(), body, label="rolled_back")
    journal.write([draft], also=partial(_go_back, reason, now_us()))


def _go_back(reason: str, now_us: int, db: sqlite3.Connection) -> None:
    go_back(db, reason, now_us)
