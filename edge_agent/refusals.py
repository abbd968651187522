"""What was refused, as alarm records; a flood of the same refusal from outside must not fill the journal."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.memory.draft import JOURNAL_AGENT, Draft, to_body
from edge_agent.memory.journal import Journal
from edge_agent.records import Json

log = logging.getLogger(__name__)

SAY_AGAIN_S, MOST_S = 60.0, 3_600.0
"""The same refusal is one record in so long, with how often it came; while it goes on, twice as long each time, up to
the second: a clock that is wrong for a year fills no journal."""

GOES_ON_S = 600.0
"""It goes on where it comes again within so long of the time from when it is told again."""

MAX_REASONS = 100
"""Different refusals counted at a time; and the most records of new ones in `SAY_AGAIN_S`."""


@dataclass(slots=True)
class _Said:
    until: float
    wait_s: float = SAY_AGAIN_S
    more: int = 0


class Refusals:
    """Records refusals, each reason once in a while. Used by one thread."""

    def __init__(
        self,
        journal: Journal,
        now_us: Callable[[], int],
        monotonic_s: Callable[[], float],
        label: str = "update_refused",
    ) -> None:
        """`label` is that of the records, and the message in the log."""
        self._journal, self._now_us, self._monotonic_s, self._label = journal, now_us, monotonic_s, label
        self._said: dict[str, _Said] = {}

    def add(self, reason: str) -> None:
        """Something was refused for this reason."""
        reason = reason[:1000]
        log.warning(self._label, extra={"reason": reason})
        now = self._monotonic_s()
        said = self._said.get(reason)
        if said is not None and now < said.until:
            said.more += 1
            return
        if said is None and len(self._said) >= MAX_REASONS:
            self._said = {known: each for known, each in self._said.items() if now < each.until}
            if len(self._said) >= MAX_REASONS:
                return
        what: dict[str, Json] = {"reason": reason}
        if said is not None and said.more:
            what["times_before"] = said.more
        wait_s = SAY_AGAIN_S
        if said is not None and now < said.until + GOES_ON_S:
            wait_s = min(2 * said.wait_s, MOST_S)
        self._said[reason] = _Said(now + wait_s, wait_s)
        draft = Draft("alarm", "event", JOURNAL_AGENT, self._now_us(), to_body(what), label=self._label)
        self._journal.later([draft])
