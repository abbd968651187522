"""Taking back what a site was given: its certificates, its passwords, its token, and the session it has now.

A broker looks at its list of revoked certificates when a client connects, and never again: a session that lives is
ended by another that takes its client id, as a user who may do nothing, and is gone again then.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Connection, select, update

from edge_hub.broker import BrokerFolder
from edge_hub.broker.eject import eject
from edge_hub.broker.roles import local_user
from edge_hub.database.schema import certificates, sites
from edge_hub.database.store import Store
from edge_hub.enrol import tokens
from edge_hub.enrol.equipment import Equipment
from edge_hub.enrol.issuing import add
from edge_hub.enrol.ledger import Ledger, Revoked
from edge_hub.records import audit
from edge_hub.records.registry import row_of
from edge_models.errors import ConfigError, KitError, RejectedError

log = logging.getLogger(__name__)


class Revoking:
    """Revokes sites, and certificates that a newer registration takes the place of; from any thread."""

    def __init__(
        self,
        store: Store,
        brokers: BrokerFolder,
        now_us: Callable[[], int],
        ledger: Ledger | None = None,
        equipment: Equipment | None = None,
    ) -> None:
        """Without a ledger: a hub that does not enrol, whose sites have passwords only."""
        self._store, self._brokers, self._now_us = store, brokers, now_us
        self._ledger, self._equipment = ledger, equipment
        self._lock = threading.Lock()
        self._to_eject: set[str] = set()

    def revoke(self, site: str, reason: str, who: str) -> dict[str, Any]:
        """Let nothing of the site in from now on, and end what is in; done again it mends what was not finished.

        Raises `UnknownError`, `RejectedError` where this hub can't, `RetryableError` where the broker is busy.
        """
        with self._store.writing() as db:
            now_us = self._now_us()
            before = row_of(db, site).revoked_us
            serials = self.take_back(db, site, reason)
            void = tokens.void(db, now_us, site)
            if before is None:
                db.execute(update(sites).where(sites.c.site == site).values(revoked_us=now_us, online=False))
            if before is None or serials or void:
                detail = {"site": site, "reason": reason, "certificates": serials, "token": void}
                audit.note(db, now_us, who, "site revoked", detail)
        self._brokers.change(gone=[site, local_user(site)])
        ended = self.enforce([site])
        return {"site": site, "revoked_us": before or now_us, "certificates": len(serials), "ended": ended}

    def take_back(self, db: Connection, site: str, reason: str) -> list[str]:
        """Its certificates count no more, in the caller's transaction; their serials. `enforce` comes after it.

        The list is written before the commit: where that fails, more is revoked than the database says, never less.
        """
        mine = (certificates.c.site == site) & certificates.c.revoked_us.is_(None)
        serials = sorted(db.scalars(select(certificates.c.serial).where(mine)))
        if serials:
            if self._ledger is None:
                raise RejectedError(
                    f"site {site} has a certificate: start the hub with --enrol, whose authority revokes it"
                )
            now_us = self._now_us()
            self._ledger.revoke(Revoked(serial, site, now_us, reason) for serial in serials)
            db.execute(update(certificates).where(mine).values(revoked_us=now_us))
        return serials

    def enforce(self, names: Iterable[str]) -> bool:
        """Sessions that these sites have by what they had before end. False: not yet, it is tried again."""
        with self._lock:
            self._to_eject.update(names)
        return self._eject()

    def look_after(self) -> None:
        """Try again what the broker did not do."""
        if self._to_eject:
            self._eject()

    def _eject(self) -> bool:
        with self._lock:
            waiting = set(self._to_eject)
            try:
                if self._equipment is not None and self._equipment.refresh(self._now_us()):
                    self._brokers.reload()
                eject(self._brokers, [name for site in sorted(waiting) for name in (site, local_user(site))])
            except (KitError, OSError) as error:
                log.error("session_not_ended", extra={"sites": sorted(waiting), "reason": str(error)})
                return False
            self._to_eject -= waiting
            return True

    def reconcile(self) -> None:
        """At the start: database, list and broker agree on who is out, whichever of them was set back.

        Raises `ConfigError` where the list is damaged or there is none.
        """
        if self._ledger is None:
            raise ConfigError("a hub that does not enrol keeps no list of certificates")
        known = self._ledger.revoked()
        with self._store.writing() as db:
            there = {row.serial: row for row in db.execute(select(certificates))}
            for issued in self._ledger.issued():
                if issued.serial not in there:
                    add(db, issued)
            for row in db.execute(select(certificates).where(certificates.c.revoked_us.is_(None))).all():
                if row.serial in known:
                    mine = certificates.c.serial == row.serial
                    db.execute(update(certificates).where(mine).values(revoked_us=known[row.serial].at_us))
            out = set(db.scalars(select(sites.c.site).where(sites.c.revoked_us.is_not(None))))
            held = select(certificates.c.site).where(certificates.c.revoked_us.is_(None)).distinct()
            joined = set(db.scalars(select(sites.c.site).where(sites.c.site.in_(held)))) - out
        self._ledger.revoke(
            Revoked(row.serial, row.site, row.revoked_us, "as the database says")
            for row in there.values()
            if row.revoked_us is not None
        )
        users = self._brokers.users()
        gone = [name for site in out for name in (site, local_user(site)) if name in users]
        missing = [site for site in joined if site not in users]
        if gone or missing:
            self._brokers.change(certificates=missing, gone=gone)
