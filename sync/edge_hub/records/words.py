"""What a site says of its journal: a page of a hello, or a heartbeat."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_sync.documents import EPOCHS_PER_PAGE, EpochState, Heartbeat, Hello


@dataclass(frozen=True, slots=True)
class Word:
    """All epochs that a site holds with an order above `after` and, where it is not None, not above `until`."""

    epochs: Sequence[EpochState]
    """By order. Without `until`, the last of them is the newest that the site has."""
    after: int
    until: int | None
    stale: bool = False
    """The broker kept it: it says what was once so."""
    said_us: int | None = None
    """What tells it from the word before: the site's clock in a heartbeat. None: it can't confirm another word."""

    lost: bool = False
    """The site has no memory: it holds nothing."""

    @property
    def newest(self) -> EpochState | None:
        """The site's newest epoch, where this word reaches so far and names any."""
        return self.epochs[-1] if self.epochs and self.until is None else None


def word_of_hello(document: Hello, retained: bool) -> Word:
    """What a page of a hello says."""
    if document.lost:
        return Word((), 0, None, retained, lost=True)
    named = _by_order(document.epochs)
    until = None if document.page >= document.pages else named[-1].order if named else document.after
    return Word(named, document.after, until, retained)


def word_of_heartbeat(document: Heartbeat, retained: bool) -> Word:
    """What a heartbeat says; of its newest epochs, where there are many."""
    named = _by_order(document.epochs)
    left_out, named = named[:-EPOCHS_PER_PAGE], named[-EPOCHS_PER_PAGE:]
    after = max(document.after, left_out[-1].order) if left_out else document.after
    return Word(named, after, None, retained, document.at_us)


def _by_order(states: Iterable[EpochState]) -> list[EpochState]:
    """Each epoch once, whatever a site sends."""
    return sorted({state.epoch: state for state in states}.values(), key=lambda state: state.order)
