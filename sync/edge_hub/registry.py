"""What sites say of themselves, into the `sites` table, inside the caller's transaction."""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, false, select, update

from edge_hub.schema import sites, streams
from edge_sync.documents import EPOCHS_PER_PAGE, Heartbeat, Hello, Presence, Reported, Resume
from edge_sync.rows import Lane

Behind = Mapping[tuple[str, Lane], int]
"""Epoch and lane of each stream that goes on at its site → up to where the hub holds it."""


def known(db: Connection, names: Iterable[str]) -> set[str]:
    """Which of these sites are registered."""
    return set(db.scalars(select(sites.c.site).where(sites.c.site.in_(list(names)))))


def presence(db: Connection, site: str, document: Presence) -> bool:
    """The site's link came or went. False: it is what an older session left behind as its will; nothing changes."""
    newer = (sites.c.session.is_(None)) | (sites.c.session <= document.session)
    changed = db.execute(
        update(sites)
        .where((sites.c.site == site) & newer)
        .values(online=document.online, epoch=document.epoch, session=document.session)
    )
    return bool(changed.rowcount)


def heartbeat(db: Connection, site: str, document: Heartbeat) -> None:
    """What the site holds, delivered or not."""
    db.execute(update(sites).where(sites.c.site == site).values(heartbeat=document.model_dump(mode="json")))


def behind(db: Connection, site: str, document: Heartbeat) -> Behind:
    """The streams of which the site says that it has more than is here; of its newest epochs, where there are many."""
    named = sorted(document.epochs, key=lambda state: state.order)[-EPOCHS_PER_PAGE:]
    mine = (streams.c.site == site) & streams.c.epoch.in_([state.epoch for state in named])
    held = {(row.epoch, row.lane): row.high for row in db.execute(select(streams).where(mine))}
    lasts = {(state.epoch, lane): last for state in named for lane, last in state.last.items()}
    return {stream: held.get(stream, 0) for stream, last in lasts.items() if last > held.get(stream, 0)}


def reported(db: Connection, site: str, document: Reported) -> None:
    """What the site runs."""
    db.execute(
        update(sites)
        .where(sites.c.site == site)
        .values(
            reported=document.model_dump(mode="json"),
            release=document.release,
            generation=document.generation,
            state=document.state,
        )
    )


def resume(db: Connection, site: str, document: Hello) -> Resume:
    """Where the hub is in each epoch the site asks about: 0 where it holds nothing."""
    asked = [state.epoch for state in document.epochs]
    mine = (streams.c.site == site) & streams.c.epoch.in_(asked)
    cursors = {state.epoch: dict.fromkeys(state.last, 0) for state in document.epochs}
    for row in db.execute(select(streams.c.epoch, streams.c.lane, streams.c.high).where(mine)):
        cursors[row.epoch][row.lane] = row.high
    return Resume(sync=document.sync, cursors=cursors)


def seen(db: Connection, names: Iterable[str], now_us: int) -> None:
    """The hub heard of these sites now."""
    db.execute(update(sites).where(sites.c.site.in_(list(names))).values(last_seen_us=now_us))


def all_offline(db: Connection) -> None:
    """The hub's own link came or went: who is online is told anew by retained messages."""
    db.execute(update(sites).where(sites.c.online).values(online=false()))
