"""Who gets a certificate: whoever shows a join token, once, and whoever shows the certificate before, again.

Each in one transaction: the token is spent, the certificate noted and the audit row added, or none of it. Whoever asks
again because the answer was lost, with the same key, is answered with the same certificate.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from sqlalchemy import Connection, func, select, update

from edge_hub.database.schema import certificates, sites
from edge_hub.database.store import Store
from edge_hub.enrol import tokens
from edge_hub.enrol.authority import Authority
from edge_hub.enrol.ledger import Issued, Ledger
from edge_hub.enrol.rate import RateLimit
from edge_hub.enrol.refused import RefusedError, anew, dead_token, revoked, too_often, unknown_token
from edge_hub.records import audit
from edge_models.errors import RejectedError
from edge_sync.enrol.certificate import RECOVER_DAYS, UNREADABLE, Identity, issued_by, load_pem, read_identity, to_pem
from edge_sync.enrol.request import Request, read_request
from edge_sync.enrol.token import group_of
from edge_sync.topics import site_id

WHO = "enrolment"
"""In the audit, of what no operator did."""

GROUP_LABEL = "group"
"""A label of sites: which group's token lets it join."""

SITE_BURST, SITE_PER_S = 10, 1 / 60
GROUP_BURST, GROUP_PER_S = 300, 5.0
"""How often a site or a group may ask, counted once its secret or certificate was found true: no stranger can use up
what is theirs. Strangers are held off by address."""

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """A certificate of this site, first, and what leads up to the root. `new`: none of its name was known before."""

    site: str
    chain: list[x509.Certificate]
    new: bool = False


class Issuing:
    """Answers requests, from any thread."""

    def __init__(
        self,
        store: Store,
        authority: Authority,
        ledger: Ledger,
        now_us: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: in seconds, only grows; `now_us` is the hub's."""
        self._store, self._authority, self._ledger, self._now_us = store, authority, ledger, now_us
        self._clock = clock
        self._limits = {True: RateLimit(SITE_BURST, SITE_PER_S), False: RateLimit(GROUP_BURST, GROUP_PER_S)}

    def join(self, name: str, secret: str, request: bytes, address: str) -> Answer:
        """For a join token and a request, DER. Raises `RefusedError`."""
        with self._store.writing() as db:
            now_us = self._now_us()
            token = tokens.find(db, name, secret)
            if token is None:
                raise unknown_token()
            self._limit(token.name)
            asked = _read(request)
            site = _named(token, asked)
            row = db.execute(select(sites).where(sites.c.site == site).with_for_update()).first()
            if row is not None and row.revoked_us is not None:
                raise revoked(site)
            if token.voided_us is not None or now_us >= token.expires_us:
                raise dead_token("void" if token.voided_us is not None else "expired", token.expires_us)
            same = (certificates.c.site == site) & (certificates.c.token == token.secret)
            again = db.execute(select(certificates).where(same).order_by(certificates.c.issued_us.desc())).first()
            if again is not None:
                return self._given(again, asked, token)
            if token.used >= token.sites:
                raise dead_token("spent", token.expires_us)
            if row is None:
                _register(db, now_us, site, token)
            elif token.name != site:
                _may_join(db, row, token)
            made = self._issue(db, site, asked, now_us, token.secret)
            tokens.spend(db, token.name)
            if asked.journal_key is not None:
                db.execute(update(sites).where(sites.c.site == site).values(journal_key=asked.journal_key))
            _note(db, now_us, "site joined", made, address, {"token": token.name})
        return Answer(site, [made, self._authority.clients.certificate], row is None)

    def renew(self, shown: bytes, request: bytes, address: str) -> Answer:
        """For a site's certificate, DER, whose holder TLS has proven, and a request. Raises `RefusedError`.

        Whose the new one is, the old one says. It may have run out: the newest of a site is good for that for a year.
        """
        old = self.shown(shown)
        with self._store.writing() as db:
            self._limit(old.site)
            asked = _read(request)
            now_us = self._now_us()
            row = db.execute(select(sites).where(sites.c.site == old.site).with_for_update()).first()
            if row is None:
                raise RefusedError(403, f"site {old.site} is not registered here: {anew(old.site)}", proven=True)
            mine = select(certificates).where(certificates.c.site == old.site)
            this = db.execute(mine.where(certificates.c.serial == old.serial)).first()
            gone = this is not None and this.revoked_us is not None
            if row.revoked_us is not None or gone or old.serial in self._ledger.revoked():
                raise revoked(old.site)
            mine = mine.order_by(certificates.c.issued_us.desc())
            if now_us > old.ends_us:
                _may_recover(old, asked, db.execute(mine).first(), now_us)
            same_key = mine.where(certificates.c.key == key_digest(asked.key), certificates.c.serial != old.serial)
            lost = db.execute(same_key).first()
            if lost is not None and _is_good_answer(lost, now_us):
                return Answer(old.site, [*load_pem(lost.pem.encode()), self._authority.clients.certificate])
            made = self._issue(db, old.site, asked, now_us, None)
            if asked.journal_key is not None and row.journal_key is None:
                db.execute(update(sites).where(sites.c.site == old.site).values(journal_key=asked.journal_key))
            what = "certificate renewed" if now_us <= old.ends_us else "certificate recovered"
            _note(db, now_us, what, made, address, {"before": old.serial})
        return Answer(old.site, [made, self._authority.clients.certificate])

    def shown(self, certificate: bytes) -> Identity:
        """Whose certificate, DER, this is, if it is of our own authority for sites. Raises `RefusedError`."""
        try:
            found = x509.load_der_x509_certificate(certificate)
            if issued_by(found, self._authority.clients.certificate):
                return read_identity(found)
        except (ValueError, RejectedError, *UNREADABLE):
            pass
        raise RefusedError(403, "this certificate is not one that this hub gave to a site", proven=False)

    def _limit(self, name: str) -> None:
        """In a transaction, so by one thread at a time."""
        wait_s = self._limits[group_of(name) is None].take(name, self._clock())
        if wait_s:
            raise too_often(wait_s, proven=True)

    def _given(self, again: Any, asked: Request, token: Any) -> Answer:
        """Answer with what this token was spent for, if the same key asks: the answer was lost on its way."""
        if again.key != key_digest(asked.key) or again.pem is None:
            raise dead_token("spent", token.expires_us)
        if again.revoked_us is not None:
            raise revoked(again.site)
        return Answer(again.site, [*load_pem(again.pem.encode()), self._authority.clients.certificate])

    def _issue(self, db: Connection, site: str, asked: Request, now_us: int, token: str | None) -> x509.Certificate:
        made = self._authority.issue_site(site, asked.key, now_us)
        known = read_identity(made)
        last_us = db.scalar(select(func.max(certificates.c.issued_us)).where(certificates.c.site == site)) or 0
        at_us = max(now_us, last_us + 1)  # which is the newest must not hang on a clock that was set back
        issued = Issued(known.serial, site, key_digest(asked.key), at_us, known.ends_us)
        self._ledger.note(issued)  # before the answer and the commit: what is out can always be taken back
        add(db, issued, token, to_pem([made]).decode())
        return made


def add(db: Connection, issued: Issued, token: str | None = None, pem: str | None = None) -> None:
    """Put a certificate into the table."""
    row = {"serial": issued.serial, "site": issued.site, "key": issued.key, "issued_us": issued.issued_us}
    db.execute(certificates.insert().values(row | {"ends_us": issued.ends_us, "token": token, "pem": pem}))


def key_digest(key: bytes) -> str:
    """How a public key stands in the table: sha256 of its DER SubjectPublicKeyInfo."""
    return hashlib.sha256(key).hexdigest()


def _read(request: bytes) -> Request:
    try:
        return read_request(request)
    except RejectedError as error:
        raise RefusedError(400, str(error), proven=True) from None


def _named(token: Any, asked: Request) -> str:
    """The site that the token lets in and the request asks to be."""
    wanted = asked.name or ""
    if token.name == wanted:
        return wanted
    if group_of(token.name) is None:
        raise RefusedError(403, f"this join token is for site {token.name}, not {wanted[:80]!r}", proven=True)
    try:
        return str(site_id(wanted))
    except RejectedError as error:
        raise RefusedError(403, str(error)[:300], proven=True) from None


def _register(db: Connection, now_us: int, site: str, token: Any) -> None:
    """A site of a group that nobody registered before."""
    if group_of(token.name) is None:
        raise RefusedError(403, f"site {site} is not registered here any more: {anew(site)}", proven=True)
    labels = {**token.labels, GROUP_LABEL: group_of(token.name)}
    db.execute(sites.insert().values(site=site, labels=labels, created_us=now_us, online=False))
    audit.note(db, now_us, WHO, "site registered", {"site": site, "again": False, "token": token.name})


def _may_join(db: Connection, row: Any, token: Any) -> None:
    """A group's token lets in a known site only if that is of the group and never was there: else it takes it over."""
    joined = db.execute(select(certificates.c.serial).where(certificates.c.site == row.site).limit(1)).first()
    other = row.labels.get(GROUP_LABEL) != group_of(token.name)
    if joined is not None or row.last_seen_us is not None or other:
        reason = f"site {row.site} is known here and not this group's to join: choose another id, or {anew(row.site)}"
        raise RefusedError(403, reason, proven=True)


def _may_recover(old: Identity, asked: Request, newest: Any, now_us: int) -> None:
    """With a certificate that ran out: not for ever, and not with a stolen one that another took the place of.

    A site whose answer was lost holds the key of the newest, and not the certificate.
    """
    if now_us > old.ends_us + RECOVER_DAYS * _DAY_US:
        ended = datetime.fromtimestamp(old.ends_us // 1_000_000, UTC).date()
        raise RefusedError(403, f"this certificate ended on {ended}, over a year ago: {anew(old.site)}", proven=True)
    if newest is not None and newest.serial != old.serial and newest.key != key_digest(asked.key):
        raise RefusedError(
            403, f"this certificate ran out and is not {old.site}'s newest: {anew(old.site)}", proven=True
        )


def _is_good_answer(lost: Any, now_us: int) -> bool:
    """Whether what was made for this very key may be said again: not once it is itself to be renewed."""
    fresh = now_us < lost.issued_us + (lost.ends_us - lost.issued_us) // 3
    return bool(fresh and lost.pem is not None and lost.revoked_us is None)


def _note(db: Connection, now_us: int, what: str, made: x509.Certificate, address: str, more: dict[str, Any]) -> None:
    identity = read_identity(made)
    detail = {"site": identity.site, "serial": identity.serial, "ends_us": identity.ends_us, "address": address}
    audit.note(db, now_us, WHO, what, detail | more)
