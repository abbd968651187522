"""Enrolment of one hub: its authority and what is issued under it, the terms on which sites may join, its upkeep."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from edge_hub.broker import BrokerFolder
from edge_hub.database.dialect import Database
from edge_hub.database.schema import certificates
from edge_hub.database.store import Store, TakenError, UnknownError
from edge_hub.enrol import tokens
from edge_hub.enrol.authority import Authority, is_there, make_authority
from edge_hub.enrol.equipment import Equipment
from edge_hub.enrol.issuing import Answer, Issuing
from edge_hub.enrol.ledger import Ledger
from edge_hub.enrol.plan import EnrolPlan
from edge_hub.enrol.refusals import Refusals
from edge_hub.enrol.renewing import ends_soon
from edge_hub.records import audit
from edge_models.errors import ConfigError, KitError
from edge_sync.enrol.token import JoinToken, group_name

log = logging.getLogger(__name__)

UPKEEP_S = 3_600.0
"""Between two looks at what must be made anew: certificates of servers, the list of revoked ones."""


CLOCK_SET_S = 60.0
"""A clock that goes on by so much more or less than time does was set."""


class Means:
    """What a hub enrols with, ready before its broker and its database are."""

    def __init__(self, plan: EnrolPlan, authority: Authority, folder: Path, brokers: BrokerFolder) -> None:
        self.plan, self.authority = plan, authority
        self.ledger = Ledger(authority.path)
        self.equipment = Equipment(authority, self.ledger, brokers.tls, folder / "enrol", plan.names)


class Enrolment:
    """What API and listener ask of it, from any thread."""

    def __init__(
        self,
        store: Store,
        brokers: BrokerFolder,
        means: Means,
        url: str,
        now_us: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url`: where sites ask; `clock` in seconds, only grows."""
        self.plan, self.authority, self.equipment, self.url = means.plan, means.authority, means.equipment, url
        self._store, self._brokers, self._ledger = store, brokers, means.ledger
        self._now_us, self.clock = now_us, clock
        self.issuing = Issuing(store, means.authority, means.ledger, now_us, clock)
        self.refusals = Refusals(store, now_us, clock)
        self._upkeep_due = clock() + UPKEEP_S
        self._ahead_s = self._clocks_apart_s()

    def invite(self, db: Connection, now_us: int, site: str, days: int) -> dict[str, Any]:
        """What a site joins with, for its kit: a new token, in the caller's transaction, and where to go with it."""
        return self._terms(site, tokens.make(db, now_us, site, days), now_us, days)

    def invite_group(
        self, group: str, count: int, labels: Mapping[str, str], days: int, replace: bool, who: str
    ) -> dict[str, Any]:
        """The same for as many sites as `count`, which choose their ids and get these labels.

        Raises `RejectedError` for what can't be; `TakenError` where the group has a token that is good, and not
        `replace`.
        """
        name, now_us = group_name(group), self._now_us()
        with self._store.writing() as db:
            if not replace and any(
                each["id"] == name and each["state"] == "open" for each in tokens.listed(db, now_us)
            ):
                raise TakenError(
                    f'group {group!r} has a join token that is good: ask with "replace" for another in its place'
                )
            secret = tokens.make(db, now_us, name, days, count, labels)
            audit.note(db, now_us, who, "join token made", {"token": name, "sites": count, "days": days})
        return {"id": name, "group": group, "count": count} | self._terms(name, secret, now_us, days)

    def tokens(self) -> list[dict[str, Any]]:
        """Every token, without its secret."""
        with self._store.reading() as db:
            return tokens.listed(db, self._now_us())

    def void(self, name: str, who: str) -> None:
        """Nobody joins with this token any more. Raises `UnknownError` where nobody could."""
        with self._store.writing() as db:
            now_us = self._now_us()
            if not tokens.void(db, now_us, name):
                raise UnknownError(f"no join token {name!r} is there to be taken back")
            audit.note(db, now_us, who, "join token taken back", {"token": name})

    def joined(self, answer: Answer) -> None:
        """A site that nobody registered before gets its place at the broker."""
        if answer.new or answer.site not in self._brokers.users():
            self._brokers.change(certificates=[answer.site])

    def look_after(self) -> bool:
        """To be asked often: now and then, make anew what ages; whether that was now.

        At once where the hub's clock was set: a list that is of another time lets nobody in.
        """
        apart_s = self._clocks_apart_s()
        if self.clock() < self._upkeep_due and abs(apart_s - self._ahead_s) < CLOCK_SET_S:
            return False
        self._ahead_s = apart_s
        self._upkeep_due = self.clock() + UPKEEP_S
        try:
            if self.equipment.refresh(self._now_us()):
                self._brokers.reload()
            self._ledger.forget(self._now_us())
            self.refusals.flush()
        except (KitError, OSError, SQLAlchemyError) as error:
            log.error("enrolment_upkeep_failed", extra={"reason": str(error)})
        return True

    def _clocks_apart_s(self) -> float:
        return self._now_us() / 1e6 - self.clock()

    def _terms(self, name: str, secret: str, now_us: int, days: int) -> dict[str, Any]:
        return {
            "join_token": JoinToken(self.authority.pin, name, secret).text(),
            "join_expires_us": now_us + days * 86_400_000_000,
            "enrol_url": self.url,
            "broker_url": self.plan.broker_url,
            "ca": self.authority.root_pem.decode(),
        }


def open_authority(plan: EnrolPlan, database: Database, now_us: int, say: Callable[[str], None]) -> Authority:
    """The authority that the plan names; made where there is none and none was before.

    Raises `ConfigError`, also where the database knows certificates of one that is not there.
    """
    if is_there(plan.authority):
        found = Authority(plan.authority)
        if (line := ends_soon(found, now_us)) is not None:
            say(line)
        return found
    store = Store(database)
    try:
        with store.reading() as db:
            known = db.execute(select(certificates.c.serial).limit(1)).first() is not None
    finally:
        store.close()
    if known:
        raise ConfigError(
            f"{plan.authority} is not there, and sites have certificates from it: put it back from a copy, or make "
            f"another with edge-agent hub ca init {plan.authority}, and every site a new kit"
        )
    made = make_authority(plan.authority, now_us)
    say(describe(made))
    return made


def describe(authority: Authority) -> str:
    """For whoever had it made: what to do with it."""
    return (
        f"made an authority for certificates in {authority.path} (root sha256 {authority.pin}): keep a copy of it "
        "where no thief of this machine finds it, no backup of the hub holds it; root.key is not needed to serve: "
        "move it away"
    )
