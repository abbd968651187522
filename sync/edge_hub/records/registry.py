"""What sites say of themselves, into the `sites` table, inside the caller's transaction."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, false, select, update

from edge_hub.database.schema import epochs, sites
from edge_hub.database.store import UnknownError
from edge_hub.records import incidents
from edge_hub.records.accounts import Highs
from edge_hub.records.words import Word
from edge_sync.documents import Heartbeat, Hello, Presence, Reported, Resume
from edge_sync.rows import Lane

Behind = Mapping[tuple[str, Lane], int]
"""Epoch and lane of each stream that goes on at its site → up to where the hub holds it."""

_KNOWN = (
    select(sites.c.site)
    .where(sites.c.site.in_(bindparam("names", expanding=True)))
    .order_by(sites.c.site)
    .with_for_update()
)
_SEEN = update(sites).where(sites.c.site.in_(bindparam("names", expanding=True))).values(last_seen_us=bindparam("now"))

_THIS = sites.c.site == bindparam("name")
_KNOWN_ONE = select(sites.c.site).where(_THIS).with_for_update()
_SEEN_ONE = update(sites).where(_THIS).values(last_seen_us=bindparam("now"))
"""Most transactions are about one site, and a list is spelled out anew each time."""
_SAID = update(sites).where(_THIS).values(heartbeat=bindparam("said")).returning(sites.c.epoch)
_CURRENT = select(sites.c.epoch, sites.c.session).where(_THIS)
_CHANGE = update(sites).where(_THIS)
"""Sets the columns that it is given beside `name`."""
_KNOWN_EPOCH = select(epochs.c.session, epochs.c.replaced).where(
    epochs.c.site == bindparam("name"), epochs.c.epoch == bindparam("of")
)
"""Made once, as these are asked for every message or batch of them: to make one takes longer than to run it."""


def row_of(db: Connection, site: str) -> Any:
    """The site's row. Raises `UnknownError`."""
    row = db.execute(select(sites).where(sites.c.site == site)).first()
    if row is None:
        raise UnknownError(f"no site {site!r} is registered at this hub")
    return row


def known(db: Connection, names: Iterable[str]) -> set[str]:
    """Which of these sites are registered. Their rows stay locked, in order: one transaction at a time takes in what a
    site says, whatever tables that is about."""
    wanted = list(names)
    if len(wanted) == 1:
        return set(db.scalars(_KNOWN_ONE, {"name": wanted[0]}))
    return set(db.scalars(_KNOWN, {"names": wanted}))


def presence(db: Connection, now_us: int, site: str, document: Presence, retained: bool) -> bool:
    """The site's link came or went. False: it is what an older session left behind; nothing changes.

    Sessions compare within an epoch, that is within a process: another disk counts from 1 again. Of two processes, the
    one that came online last is the site's; of the other, its will and what was heard before change nothing.
    """
    current = db.execute(_CURRENT, {"name": site}).one()
    mine = (epochs.c.site == site) & (epochs.c.epoch == document.epoch)
    known = db.execute(_KNOWN_EPOCH, {"name": site, "of": document.epoch}).first()
    if current.epoch == document.epoch:
        if document.session < current.session:
            return False
    elif current.epoch is not None and (not document.online or _heard(known, document)):
        return False
    if document.online:
        if known is None:
            row = {"site": site, "epoch": document.epoch, "ord": 0, "since_us": now_us, "held": True}
            db.execute(epochs.insert().values(row | {"session": document.session, "replaced": False}))
        elif not _heard(known, document):
            if known.replaced and not retained:
                _two_processes(db, now_us, site, document, current.epoch)
            db.execute(update(epochs).where(mine).values(session=document.session, replaced=False))
        if not retained and current.epoch not in (None, document.epoch):
            other = (epochs.c.site == site) & (epochs.c.epoch == current.epoch)
            db.execute(update(epochs).where(other).values(replaced=True))
    now = {"online": document.online, "epoch": document.epoch, "session": document.session}
    db.execute(_CHANGE, {"name": site, **now})
    return True


def _heard(known: Any, document: Presence) -> bool:
    """Whether this process came online before in this session, or in a later one."""
    return known is not None and known.session is not None and bool(document.session <= known.session)


def _two_processes(db: Connection, now_us: int, site: str, document: Presence, current: str) -> None:
    """A process connects anew after another one did: it lived before and after it, so both live.

    What the broker kept may be older than what is known: it is no sign of that, and replaces nobody.
    """
    both = sorted((document.epoch, current))
    detail = {"epochs": both, "back": document.epoch, "session": document.session}
    incidents.note(db, now_us, site, "two_processes", "+".join(both), detail)


def heartbeat(db: Connection, site: str, document: Heartbeat) -> str | None:
    """What the site holds, delivered or not. The epoch of the process that is the site's, as far as is known."""
    current: str | None = db.scalar(_SAID, {"name": site, "said": document.model_dump(mode="json")})
    return current


def goes_on(db: Connection, now_us: int, site: str, epoch: str, current: str) -> None:
    """A process that another one replaced still says what it holds, again and again: both live.

    Not every broker ends a connection when another comes with its client id: then neither connects anew.
    """
    mine = (epochs.c.site == site) & (epochs.c.epoch == epoch) & epochs.c.replaced
    if db.execute(select(epochs.c.epoch).where(mine)).first() is not None:
        both = sorted((epoch, current))
        incidents.note(db, now_us, site, "two_processes", "+".join(both), {"epochs": both, "goes_on": epoch})


def behind(word: Word, highs: Highs) -> Behind:
    """The streams of which the site says that it has more than is here."""
    lasts = {(state.epoch, lane): last for state in word.epochs for lane, last in state.last.items()}
    return {stream: highs.get(stream, 0) for stream, last in lasts.items() if last > highs.get(stream, 0)}


def reported(db: Connection, site: str, document: Reported) -> None:
    """What the site runs."""
    said = {"release": document.release, "generation": document.generation, "state": document.state}
    db.execute(_CHANGE, {"name": site, "reported": document.model_dump(mode="json"), **said})


def resume(document: Hello, highs: Highs) -> Resume:
    """Where the hub is in each epoch the site asks about: 0 where it holds nothing."""
    cursors = {state.epoch: dict.fromkeys(state.last, 0) for state in document.epochs}
    for (epoch, lane), high in highs.items():
        cursors[epoch][lane] = high
    return Resume(sync=document.sync, cursors=cursors)


def seen(db: Connection, names: Iterable[str], now_us: int) -> None:
    """The hub heard of these sites now."""
    which = list(names)
    if len(which) == 1:
        db.execute(_SEEN_ONE, {"name": which[0], "now": now_us})
    else:
        db.execute(_SEEN, {"names": which, "now": now_us})


def offline(db: Connection, names: Iterable[str] | None) -> None:
    """The hub's own link to these sites (None: all) came or went: retained messages tell anew who is online."""
    which = sites.c.online if names is None else sites.c.online & sites.c.site.in_(list(names))
    db.execute(update(sites).where(which).values(online=false()))
