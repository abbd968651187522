"""What sites say that they hold, kept beside what is held here: from the difference follows what is lost.

A word (`words`) names every epoch of a range of orders, with the end of each lane. What it leaves out, its
site holds no more. Words may be old: brokers keep them, deliver them twice, and let one topic overtake another. So
whatever takes something away rests on what no old word can say, or is believed when it is said again. Nothing that is
lost is stored: it is derived (`edge_hub.records.losses`), and heals when a disk comes back.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, bindparam, case, null, select, update

from edge_hub.database.dialect import BulkInsert
from edge_hub.database.schema import epochs, streams
from edge_hub.records import incidents
from edge_hub.records.stream import Key, of_stream
from edge_hub.records.words import Word
from edge_sync.documents import EPOCHS_PER_PAGE, EpochState
from edge_sync.rows import LANES, Lane, chain_start

Highs = Mapping[tuple[str, Lane], int]
"""Epoch and lane → up to where the hub holds it; without those of which it has not heard."""

_TELL_EPOCHS = BulkInsert(epochs, update=("ord", "since_us", "held", "final", "lost"))
_TELL_STREAMS = BulkInsert(streams, update=("told", "last", "lost_us"))

_EPOCH = (epochs.c.epoch, epochs.c.ord, epochs.c.since_us, epochs.c.held, epochs.c.final, epochs.c.lost)
_STREAM = (streams.c.high, streams.c.told, streams.c.last, streams.c.forked, streams.c.lost_us)

_of_both = (streams.c.site == epochs.c.site) & (streams.c.epoch == epochs.c.epoch)
_HELD = (
    select(*_EPOCH, streams.c.lane, *_STREAM)
    .select_from(epochs.outerjoin(streams, _of_both))
    .where(epochs.c.held == bindparam("held"), epochs.c.site == bindparam("site"))
)
"""Made once, and one statement: every site says this every 30 s."""


@dataclass(frozen=True, slots=True)
class _Epoch:
    epoch: str
    ord: int
    since_us: int
    held: bool
    final: bool
    lost: bool


@dataclass(frozen=True, slots=True)
class _Stream:
    """The account of one stream, as in the table."""

    high: int = 0
    told: int = 0
    last: int = 0
    forked: bool = False
    lost_us: int | None = None

    def told_of(self, last: int, held: bool) -> "_Stream":
        """There are records up to `last`; where their epoch may still be held, they may be."""
        return replace(self, told=max(self.told, last), last=max(self.last, last) if held else self.last)

    def missed(self, now_us: int) -> "_Stream":
        """With the time when something was first seen to be lost."""
        is_lost = self.told > (self.high if self.forked else max(self.high, self.last))
        return replace(self, lost_us=(self.lost_us or now_us) if is_lost else None)


_NOTHING = _Stream()


@dataclass(slots=True)
class _Known:
    """What the tables say of the epochs that a site holds, and of those it names."""

    epochs: dict[str, _Epoch] = field(default_factory=dict)
    streams: dict[tuple[str, Lane], _Stream] = field(default_factory=dict)


class Accounts:
    """Takes words into `epochs` and `streams`, in the caller's transaction, in the order they came."""

    def __init__(self) -> None:
        self._doubted: dict[str, tuple[str | None, int]] = {}
        """Site → newest epoch and time of a heartbeat that left out an epoch that seemed to be newer."""

    def take(self, db: Connection, site: str, word: Word, now_us: int) -> Highs:
        """Note what the site says it holds, and holds no more. Where the hub is in the streams of what it named."""
        if word.lost:
            if not word.stale:
                _drop(db, site, None, now_us)
            return {}
        named = {state.epoch for state in word.epochs}
        known = _read(db, site, named)
        states = [state for state in word.epochs if not _from_here(state, word, known)]
        went_back = _note_streams(db, site, word, states, known, now_us)
        _note_epochs(db, site, word, states, known, went_back, now_us)
        if not word.stale:
            _drop(db, site, self._gone(site, word, known), now_us)
        return {stream: row.high for stream, row in known.streams.items() if stream[0] in named}

    def _gone(self, site: str, word: Word, known: _Known) -> list[str]:
        """The epochs that the word covers and does not name.

        One that seems to be newer than the newest named may only be too new for an old word. It is gone where the
        newest named was not known before, for no old word names a new epoch; or where a second heartbeat says so too.
        """
        named = {state.epoch for state in word.epochs}
        left_out = [epoch for epoch in known.epochs.values() if epoch.epoch not in named]
        if word.until is not None:
            return [epoch.epoch for epoch in left_out if word.after < epoch.ord <= word.until]
        top = known.epochs.get(word.newest.epoch) if word.newest is not None else None
        if word.newest is not None and (top is None or not top.ord):
            self._doubted.pop(site, None)
            return [epoch.epoch for epoch in left_out if word.after < epoch.ord or not epoch.ord]
        left_out = [epoch for epoch in left_out if word.after < epoch.ord]
        newer = {each.epoch for each in left_out if top is None or each.ord >= top.ord or each.since_us > top.since_us}
        if not newer or self._said_again(site, word):
            self._doubted.pop(site, None)
            newer = set()
        return [epoch.epoch for epoch in left_out if epoch.epoch not in newer]

    def _said_again(self, site: str, word: Word) -> bool:
        """Whether another heartbeat before this one told of the same newest epoch, and was doubted."""
        if word.said_us is None:
            return False
        this = (word.newest.epoch if word.newest is not None else None, word.said_us)
        before = self._doubted.setdefault(site, this)
        if before[0] != this[0]:
            self._doubted[site] = this
        return before[0] == this[0] and before[1] != this[1]


def heard_of(db: Connection, key: Key, last: int, now_us: int) -> None:
    """A batch that could not be taken yet shows that there are records up to `last`."""
    site, epoch, lane = key
    row = db.execute(select(*_STREAM).where(of_stream(streams, key))).first()
    held = db.scalar(select(epochs.c.held).where((epochs.c.site == site) & (epochs.c.epoch == epoch)))
    was = _Stream(*row) if row is not None else _Stream()
    now = was.told_of(last, held is not False).missed(now_us)
    if now != was:
        _TELL_STREAMS(db, [_told(site, epoch, lane, now, now_us)])


def forked(db: Connection, site: str, epoch: str, lane: str, last: int, reason: str, now_us: int) -> None:
    """The site has other rows than the hub in this stream, of which a batch ended at `last`; those will not come."""
    mine = of_stream(streams, (site, epoch, lane))
    told = case((streams.c.told > last, streams.c.told), else_=last)
    noted = update(streams).where(mine).values(forked=True, told=told, lost_us=now_us)
    if not db.execute(noted).rowcount:
        start = chain_start(epoch, lane)
        row = {"high": 0, "hash": start, "since_us": now_us, "told": last, "last": 0, "forked": True, "lost_us": now_us}
        db.execute(streams.insert().values(site=site, epoch=epoch, lane=lane, **row))
    detail = {"epoch": epoch, "lane": lane, "reason": reason}
    incidents.note(db, now_us, site, "fork", f"{epoch}:{lane}", detail)


def _read(db: Connection, site: str, named: Iterable[str]) -> _Known:
    known = _Known()
    for epoch, order, since_us, held, final, lost, lane, *stream in db.execute(_HELD, {"site": site, "held": True}):
        if epoch not in known.epochs:
            known.epochs[epoch] = _Epoch(epoch, order, since_us, held, final, lost)
        if lane is not None:
            known.streams[epoch, lane] = _Stream(*stream)
    others = [epoch for epoch in named if epoch not in known.epochs]
    if others:
        mine = (streams.c.site == site) & streams.c.epoch.in_(others)
        for each in db.execute(select(streams.c.epoch, streams.c.lane, *_STREAM).where(mine)):
            known.streams[each[0], each[1]] = _Stream(*each[2:])
        asked = (epochs.c.site == site) & epochs.c.epoch.in_(others)
        known.epochs |= {row[0]: _Epoch(*row) for row in db.execute(select(*_EPOCH).where(asked))}
    return known


def _from_here(state: EpochState, word: Word, known: _Known) -> bool:
    """Whether a site that lost its memory may have this epoch from the hub: it names nothing that is new here."""
    was = known.epochs.get(state.epoch)
    if was is None or not was.lost or word.stale:
        return False
    ends = ((known.streams.get((state.epoch, lane), _NOTHING), last) for lane, last in state.last.items())
    return all(last <= min(stream.high, stream.told) for stream, last in ends)


def _note_epochs(
    db: Connection,
    site: str,
    word: Word,
    states: Iterable[EpochState],
    known: _Known,
    went_back: set[str],
    now_us: int,
) -> None:
    rows = []
    for state in states:
        was = known.epochs.get(state.epoch)
        is_held, is_lost = (was.held, was.lost) if was is not None and word.stale else (True, False)
        is_over = state is not word.newest and state.epoch not in went_back and not is_lost
        is_final = is_over or (was is not None and was.final)
        if was is None or (was.ord, was.held, was.final, was.lost) != (state.order, is_held, is_final, is_lost):
            # A presence is heard before the word that names older epochs too: only words say what came after what.
            since_us = was.since_us if was is not None and was.ord else now_us
            rows.append((site, state.epoch, state.order, since_us, is_held, None, False, is_final, is_lost))
    _TELL_EPOCHS(db, rows)


def _note_streams(
    db: Connection, site: str, word: Word, states: Iterable[EpochState], known: _Known, now_us: int
) -> set[str]:
    """Returns the epochs that are over at the site and end before what is known of them: its disk went back."""
    rows, went_back = [], set()
    for state in states:
        epoch = known.epochs.get(state.epoch)
        was_held = epoch is None or epoch.held
        for lane in LANES:
            was, said = known.streams.get((state.epoch, lane), _NOTHING), state.last.get(lane, 0)
            if was.told == was.last == said >= was.high and not was.forked:
                continue  # nearly always
            now = _as_said(was, said, word, state, was_held)
            if state is not word.newest and said < max(was.told, was.high):
                went_back.add(state.epoch)
                now = replace(now, told=max(now.told, was.high))
                if was_held and not word.stale and (now.told, now.last) != (was.told, was.last):
                    detail = {"epoch": state.epoch, "lane": lane, "told": now.told, "says": said, "high": was.high}
                    incidents.note(db, now_us, site, "journal_went_back", f"{state.epoch}:{lane}", detail)
            now = now.missed(now_us)
            if now != was:
                rows.append(_told(site, state.epoch, lane, now, now_us))
    _TELL_STREAMS(db, rows)
    return went_back


def _as_said(was: _Stream, said: int, word: Word, state: EpochState, was_held: bool) -> _Stream:
    """The account after a word that says where the stream ends."""
    if word.stale:
        return was.told_of(said, held=was_held)
    if state is word.newest:  # it grows: a lower end is an older one
        return was.told_of(said, held=True)
    return replace(was, told=max(was.told, said), last=said)  # it is over: no older word gives it another end


def _told(site: str, epoch: str, lane: str, now: _Stream, now_us: int) -> tuple[object, ...]:
    """A row of `streams`; of one that is there, only what was told is changed."""
    start = chain_start(epoch, lane)
    return (site, epoch, lane, now.high, start, now_us, now.told, now.last, now.forked, now.lost_us)


def _drop(db: Connection, site: str, gone: Sequence[str] | None, now_us: int) -> None:
    """The site holds these epochs no more: what of them is not here will not come. None: it lost all it had."""
    if gone is not None and not gone:
        return
    missed = case((streams.c.told > streams.c.high, now_us), else_=null())
    told = case((streams.c.told > streams.c.high, streams.c.told), else_=streams.c.high)
    no_more = update(streams).where(streams.c.site == site).values(told=told, last=0, lost_us=missed)
    if gone is None:
        db.execute(no_more.where((streams.c.last > 0) | (streams.c.told < streams.c.high)))
        db.execute(update(epochs).where((epochs.c.site == site) & ~epochs.c.lost).values(held=False, lost=True))
        return
    for at in range(0, len(gone), EPOCHS_PER_PAGE):
        some = gone[at : at + EPOCHS_PER_PAGE]
        db.execute(no_more.where(streams.c.epoch.in_(some)))
        db.execute(update(epochs).where((epochs.c.site == site) & epochs.c.epoch.in_(some)).values(held=False))
