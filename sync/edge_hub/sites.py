"""The register of sites: who they are, how to reach the broker as one of them, and how each is doing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, case, func, select, tuple_

from edge_hub.broker import BrokerFolder
from edge_hub.broker.roles import Role, local_user
from edge_hub.database.schema import certificates, desired, epochs, gaps, quarantine, records, sites, streams
from edge_hub.database.store import Store, TakenError, UnknownError
from edge_hub.enrol import tokens
from edge_hub.enrol.revoking import Revoking
from edge_hub.records import audit, incidents
from edge_hub.records.losses import OPEN, UNKNOWN, summed
from edge_hub.records.registry import row_of
from edge_hub.records.tombstones import LET_GO
from edge_models.errors import RejectedError
from edge_sync.rows import record_id
from edge_sync.topics import site_id

MAX_PAGE = 1_000

Invite = Callable[[Connection, int, str], dict[str, Any]]
"""What a site may join with, made in the transaction that registers it, at this time (µs)."""

_COLUMNS = ("at", "kind", "agent", "subject", "label", "score", "ref", "body", "received_us")


class Sites:
    """Registers sites and answers questions about them."""

    def __init__(
        self, store: Store, brokers: BrokerFolder, now_us: Callable[[], int], revoking: Revoking | None = None
    ) -> None:
        """`revoking`: of a hub that enrols."""
        self._store, self._brokers, self._now_us = store, brokers, now_us
        self._revoking = revoking or Revoking(store, brokers, now_us)

    def register(self, name: str, labels: Mapping[str, str], replace: bool, who: str) -> dict[str, Any]:
        """Make the site known and give it passwords, told this once; `replace` makes new ones for a known site.

        Its journal key is forgotten then: it may be another machine, and the next checkpoint says which it has. What
        it had before, passwords and certificates, lets nobody in any more.

        Raises `RejectedError` for a name no site can have, `TakenError` for a known site without `replace`.
        """
        (made,) = self.register_all([(name, labels)], replace, who)
        return made

    def register_all(
        self, wanted: Sequence[tuple[str, Mapping[str, str]]], replace: bool, who: str, invite: Invite | None = None
    ) -> list[dict[str, Any]]:
        """The same for many, all or none. With `invite` each gets what that makes, and no password of the hub's."""
        names = [str(site_id(name)) for name, _ in wanted]
        if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
            raise RejectedError(f"site {twice!r} is named twice")
        superseded, made = [], []
        with self._store.writing() as db:
            now_us = self._now_us()
            known = set(db.scalars(select(sites.c.site).where(sites.c.site.in_(names))))
            for site, (_, labels) in zip(names, wanted, strict=True):
                if site in known and not replace:
                    raise TakenError(f'site {site!r} is registered already: ask with "replace" for new passwords')
                if site in known:
                    anew = {"labels": dict(labels), "journal_key": None, "revoked_us": None}
                    db.execute(sites.update().where(sites.c.site == site).values(anew))
                    if self._revoking.take_back(db, site, "registered anew"):
                        superseded.append(site)
                    tokens.void(db, now_us, site)
                else:
                    db.execute(sites.insert().values(site=site, labels=dict(labels), created_us=now_us, online=False))
                audit.note(db, now_us, who, "site registered", {"site": site, "again": site in known})
                made.append({"site": site} | (invite(db, now_us, site) if invite is not None else {}))
        # After the commit: a password that was made for a registration that failed would lock the old one out.
        joining = names if invite is not None else []
        passwords: dict[str, Role] = {local_user(site): "local" for site in names}
        if invite is None:
            passwords |= dict.fromkeys(names, "site")
        secrets = self._brokers.change(passwords=passwords, certificates=joining)
        self._revoking.enforce(superseded)
        for each in made:
            site, local = each["site"], local_user(each["site"])
            if invite is None:
                each |= {"username": site, "password": secrets[site]}
            each |= {"local_username": local, "local_password": secrets[local]}
        return made

    def all(self) -> list[dict[str, Any]]:
        """Every site, in short."""
        with self._store.reading() as db:
            counts = _Counts(db, None)
            return [counts.summary(row) for row in db.execute(select(sites).order_by(sites.c.site))]

    def get(self, site: str) -> dict[str, Any]:
        """One site, with all it said of itself and its streams, the newest epoch first. Raises `UnknownError`."""
        with self._store.reading() as db:
            row = row_of(db, site)
            wanted = db.execute(select(desired.c.generation, desired.c.release).where(desired.c.site == site)).first()
            held = select(streams).where(streams.c.site == site).order_by(streams.c.since_us.desc(), streams.c.lane)
            newest = select(func.max(certificates.c.ends_us)).where(
                certificates.c.site == site, certificates.c.revoked_us.is_(None)
            )
            return _Counts(db, site).summary(row) | {
                "certificate_ends_us": db.scalar(newest),
                "created_us": row.created_us,
                "epoch": row.epoch,
                "heartbeat": row.heartbeat,
                "reported": row.reported,
                "desired": wanted and {"release": wanted.release, "generation": wanted.generation},
                "streams": [
                    {"epoch": each.epoch, "lane": each.lane, "high": each.high, "since_us": each.since_us}
                    for each in db.execute(held)
                ],
            }

    def gaps(self, site: str) -> list[dict[str, Any]]:
        """The site's records that will never come, by range and reason. Raises `UnknownError`."""
        with self._store.reading() as db:
            row_of(db, site)
            query = select(gaps).where(gaps.c.site == site).order_by(gaps.c.epoch, gaps.c.lane, gaps.c.first)
            return [
                {name: getattr(row, name) for name in ("epoch", "lane", "first", "last", "reason")}
                | {"count": row.last - row.first + 1}
                for row in db.execute(query)
            ]

    def record(self, site: str, epoch: str, lane: str, seq: int) -> dict[str, Any]:
        """One record. Raises `UnknownError`."""
        key = (records.c.epoch == epoch) & (records.c.lane == lane) & (records.c.seq == seq)
        with self._store.reading() as db:
            row = db.execute(select(records).where((records.c.site == site) & key)).first()
        if row is None:
            raise UnknownError(f"no record {record_id(epoch, lane, seq)} of site {site!r} is held here")
        return shown(row) | {"hash": row.hash.hex()}

    def page(
        self,
        site: str,
        where: Mapping[str, str],
        after: tuple[str, str, int] | None,
        limit: int,
        newest: bool,
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Records in the order of their keys (or backwards), and the cursor that goes on after them, if any are left.

        `where`: equal values of `epoch`, `lane`, `kind`, `agent`. Raises `UnknownError`.
        """
        key = tuple_(records.c.epoch, records.c.lane, records.c.seq)
        query = select(records).where(records.c.site == site)
        for name, value in where.items():
            query = query.where(records.c[name] == value)
        if after is not None:
            query = query.where(key < after if newest else key > after)
        order = [c.desc() if newest else c.asc() for c in (records.c.epoch, records.c.lane, records.c.seq)]
        with self._store.reading() as db:
            row_of(db, site)
            rows = db.execute(query.order_by(*order).limit(limit + 1)).all()
        page = [shown(row) for row in rows[:limit]]
        return page, page[-1]["id"] if len(rows) > limit else None

    def totals(self) -> dict[str, float]:
        """For the metrics: sites, how many are online, records that are not here yet or lost, and incidents."""
        listed = self.all()
        with self._store.reading() as db:
            noted = incidents.count(db)
        return {
            "sites": len(listed),
            "online": sum(bool(each["online"]) for each in listed),
            "backlog": sum(each["backlog"] for each in listed),
            "lost": sum(each["lost"] for each in listed),
            "unknown": sum(each["unknown"] for each in listed),
            "open_tails": sum(each["open_tails"] for each in listed),
            "incidents": noted,
        }


class _Counts:
    """What is held, to come, lost and put aside, of one site or of all. Up to `high` all is a record or in a gap."""

    def __init__(self, db: Connection, site: str | None) -> None:
        def of(query: Any, column: Any) -> Any:
            return db.execute(query if site is None else query.where(column == site)).all()

        behind = case((~streams.c.forked & (streams.c.last > streams.c.high), streams.c.last - streams.c.high), else_=0)
        sums = [summed(amount) for amount in (streams.c.high, behind, UNKNOWN)]
        self._sums: dict[str, tuple[int, int, int]] = {
            name: (_count(held), _count(backlog), _count(unknown))
            for name, held, backlog, unknown in of(
                select(streams.c.site, *sums).group_by(streams.c.site), streams.c.site
            )
        }
        count = gaps.c.last - gaps.c.first + 1
        gone = select(gaps.c.site, summed(count), summed(case((LET_GO, 0), else_=count))).group_by(gaps.c.site)
        self._gone = {name: (_count(all_of_it), _count(lost)) for name, all_of_it, lost in of(gone, gaps.c.site)}
        opened = select(epochs.c.site, func.count()).where(OPEN).group_by(epochs.c.site)
        self._open: dict[str, int] = dict(of(opened, epochs.c.site))
        aside = select(quarantine.c.site, func.count()).group_by(quarantine.c.site)
        self._aside = dict(of(aside, quarantine.c.site))

    def summary(self, row: Any) -> dict[str, Any]:
        """A site in short."""
        gone, lost = self._gone.get(row.site, (0, 0))
        held, backlog, unknown = self._sums.get(row.site, (0, 0, 0))
        return {
            "site": row.site,
            "labels": row.labels,
            "online": bool(row.online),
            "revoked_us": row.revoked_us,
            "last_seen_us": row.last_seen_us,
            "release": row.release,
            "generation": row.generation,
            "state": row.state,
            "records": held - gone,
            "backlog": backlog,
            "lost": lost,
            "unknown": unknown,
            "open_tails": self._open.get(row.site, 0),
            "quarantined": self._aside.get(row.site, 0),
        }


def _count(total: float) -> int:
    """A site may tell of more than can be shown."""
    return int(min(total, 2**53))


def shown(row: Any) -> dict[str, Any]:
    """A record as the API shows it, without its hash."""
    head = {"id": record_id(row.epoch, row.lane, row.seq), "epoch": row.epoch, "lane": row.lane, "seq": row.seq}
    return head | {name: getattr(row, name) for name in _COLUMNS}
