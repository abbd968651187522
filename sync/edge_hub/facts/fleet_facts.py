"""What all sites are told: a log of facts, of which each site gets what it lacks, signed.

The newest version of each key is a row of `fleet_facts`; the versions that were ever given are kept in `meta`, the
newest thousand. A site that stands at one of them gets a delta, any other a snapshot. Versions grow by steps that are
drawn: a hub that was restored from a backup does not give the numbers it gave before to other facts, so it can tell
that a site has what it does not know of. Guarantees: sync/SPEC.md, section Facts.
"""

import json
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, func, or_, select, update

from edge_hub.database.dialect import lock
from edge_hub.database.schema import fleet_facts, meta, sites
from edge_hub.database.store import Store, UnknownError
from edge_hub.records import audit
from edge_models.errors import RejectedError
from edge_sync.documents import FleetFact, FleetFacts, dump
from edge_sync.facts import FACTS_TYPE, MAX_KEY_CHARS, MAX_KEYS, MAX_TOTAL_BYTES, MAX_VALUE_BYTES, value_text
from edge_sync.signing import sign

STEP = 2**20
"""A version is at most so much above the one before: two histories share one in a million."""

MAX_ISSUED = 1_000
"""Versions that are remembered, and with them deletions: a site further behind gets a snapshot."""

MAX_AHEAD = 2**32
"""A site may say that it is so far ahead, no further: some eight thousand changes, more than any backup lacks. Versions
end at 2**53, and one site must not use them up."""

AHEAD_PAUSE_US = 60_000_000
"""Between two times that the log is raised above what a site says."""

_LOG, _RAISED = "facts_log", "facts_raised_us"
"""Rows of `meta`: the versions that were given, as a JSON list; when the log was last raised."""

_KEPT_ENVELOPES = 16
"""Most sites stand at the same version: what they lack is signed once."""

_stands_elsewhere = or_(sites.c.facts_version.is_(None), sites.c.facts_version != bindparam("version"))
_STANDS = (
    update(sites).where(sites.c.site == bindparam("name"), _stands_elsewhere).values(facts_version=bindparam("version"))
)
_META = select(meta.c.value).where(meta.c.key == bindparam("name"))
"""Made once: every heartbeat asks."""

Draw = Callable[[int], int]
"""A number from 0 to below the one given."""


class FleetFactLog:
    """Changes the fleet's facts. `changed` is told after each change that is committed."""

    def __init__(
        self,
        store: Store,
        changed: Callable[[], None],
        now_us: Callable[[], int],
        draw: Draw = secrets.randbelow,
    ) -> None:
        self._store, self._changed, self._now_us, self._draw = store, changed, now_us, draw

    def put(self, key: str, value: Any, expires_in_s: float | None, who: str) -> dict[str, Any]:
        """Set a fact for all sites; what is so already is left. Raises `RejectedError` beyond the limits."""
        text = _checked(key, value)
        with self._store.writing() as db:
            now_us = self._now_us()
            expires_at = None if expires_in_s is None else now_us + round(expires_in_s * 1e6)
            held = db.execute(select(fleet_facts).where(fleet_facts.c.key == key)).first()
            if held is not None and held.value == text and held.expires_at is expires_at is None:
                return _shown(held)
            self._bury_expired(db, now_us)
            self._write(db, now_us, key, text, expires_at)
            _check_room(db)
            audit.note(db, now_us, who, "fleet fact set", {"key": key, "value": value, "expires_at": expires_at})
            shown = _shown(db.execute(select(fleet_facts).where(fleet_facts.c.key == key)).one())
        self._changed()
        return shown

    def delete(self, key: str, who: str) -> None:
        """Take a fact away from all sites. Raises `UnknownError`."""
        with self._store.writing() as db:
            now_us = self._now_us()
            held = db.scalar(select(fleet_facts.c.value).where(fleet_facts.c.key == key))
            if held is None:
                raise UnknownError(f"no fact of the fleet is called {key[:MAX_KEY_CHARS]!r}")
            self._bury_expired(db, now_us)
            self._write(db, now_us, key, None, None)
            audit.note(db, now_us, who, "fleet fact deleted", {"key": key})
        self._changed()

    def get(self, key: str) -> dict[str, Any]:
        """One fact. Raises `UnknownError`."""
        with self._store.reading() as db:
            row = db.execute(_alive(self._now_us()).where(fleet_facts.c.key == key)).first()
        if row is None:
            raise UnknownError(f"no fact of the fleet is called {key[:MAX_KEY_CHARS]!r}")
        return _shown(row)

    def all(self) -> dict[str, Any]:
        """Every fact that has not expired, the version of all together, and how many sites said they have it."""
        with self._store.reading() as db:
            version = newest(db)
            said = select(func.count()).select_from(sites)
            return {
                "version": version,
                "sites": db.scalar(said),
                "sites_up_to_date": db.scalar(said.where(func.coalesce(sites.c.facts_version, 0) == version)),
                "facts": [_shown(row) for row in db.execute(_alive(self._now_us()).order_by(fleet_facts.c.key))],
            }

    def told(self, db: Connection, site: str, version: int) -> bool:
        """In the caller's transaction: the site says up to where it has the log; whether it lacks something.

        Where it says more than was ever given here, this hub was restored from a backup, and goes on above that.
        """
        db.execute(_STANDS, {"name": site, "version": version})
        high = newest(db)
        if version <= high:
            return version < high
        now_us = self._now_us()
        since_us = now_us - int(_meta(db, _RAISED) or -AHEAD_PAUSE_US)
        if version - high > MAX_AHEAD or 0 <= since_us < AHEAD_PAUSE_US:
            return False
        lock(db, audit.LOCK)  # before that of `_issue`, as others have it already where they come here
        _issue(db, self._draw, above=version)
        _set_meta(db, _RAISED, str(now_us))
        audit.note(db, now_us, "hub", "fleet facts raised", {"site": site, "from": high, "above": version})
        return True

    def _bury_expired(self, db: Connection, now_us: int) -> None:
        """Sites pass over what has expired by their own clocks; here it makes room, and is deleted there."""
        expired = select(fleet_facts.c.key).where(fleet_facts.c.value.is_not(None), fleet_facts.c.expires_at <= now_us)
        for key in db.scalars(expired.order_by(fleet_facts.c.version)).all():
            self._write(db, now_us, key, None, None)

    def _write(self, db: Connection, now_us: int, key: str, text: str | None, expires_at: int | None) -> None:
        version = _issue(db, self._draw)
        values = {"value": text, "version": version, "expires_at": expires_at, "at_us": now_us}
        if not db.execute(update(fleet_facts).where(fleet_facts.c.key == key).values(**values)).rowcount:
            db.execute(fleet_facts.insert().values(key=key, **values))


class FleetFactEnvelopes:
    """What a site lacks of the log, signed."""

    def __init__(self, key: Path) -> None:
        self._key = key
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()

    def for_site(self, db: Connection, site: str) -> bytes | None:
        """The document for where the site said it stands; None where it has all."""
        found = document(db, db.scalar(select(sites.c.facts_version).where(sites.c.site == site)) or 0)
        if found is None:
            return None
        payload = dump(found)
        if payload not in self._kept:
            self._kept[payload] = sign(payload, FACTS_TYPE, self._key)
            while len(self._kept) > _KEPT_ENVELOPES:
                self._kept.popitem(last=False)
        return self._kept[payload]


def document(db: Connection, version: int) -> FleetFacts | None:
    """What a site that stands at `version` lacks; None where it lacks nothing, or is further than this hub."""
    issued = _issued(db)
    high = issued[-1] if issued else 0
    if version >= high:
        return None
    if version in issued:
        past = [each for each in issued if version < each < high]
        rows = db.execute(select(fleet_facts).where(fleet_facts.c.version > version).order_by(fleet_facts.c.version))
        delta = FleetFacts(after=version, version=high, snapshot=False, facts=[_fact(r) for r in rows], past=past)
        if len(dump(delta)) <= MAX_TOTAL_BYTES:
            return delta
    return _snapshot(db, high)


def newest(db: Connection) -> int:
    """The version of all facts together; 0 where there never was one."""
    issued = _issued(db)
    return issued[-1] if issued else 0


def online(db: Connection) -> Sequence[str]:
    """The sites that a change is told to at once; the others say where they stand when they come back."""
    return db.scalars(select(sites.c.site).where(sites.c.online).order_by(sites.c.site)).all()


def _snapshot(db: Connection, high: int) -> FleetFacts:
    rows = db.execute(select(fleet_facts).where(fleet_facts.c.value.is_not(None)).order_by(fleet_facts.c.version))
    return FleetFacts(after=0, version=high, snapshot=True, facts=[_fact(row) for row in rows])


def _fact(row: Any) -> FleetFact:
    value = None if row.value is None else json.loads(row.value)
    return FleetFact(key=row.key, value=value, version=row.version, expires_at=row.expires_at)


def _shown(row: Any) -> dict[str, Any]:
    return {
        "key": row.key,
        "value": json.loads(row.value),
        "version": row.version,
        "expires_at_us": row.expires_at,
        "set_us": row.at_us,
    }


def _alive(now_us: int) -> Any:
    unexpired = or_(fleet_facts.c.expires_at.is_(None), fleet_facts.c.expires_at > now_us)
    return select(fleet_facts).where(fleet_facts.c.value.is_not(None), unexpired)


def _checked(key: str, value: Any) -> str:
    """The value as JSON text. Raises `RejectedError`."""
    if not 1 <= len(key) <= MAX_KEY_CHARS or not key.isprintable():
        raise RejectedError(f"fact {key[:40]!r}: a key has 1 to {MAX_KEY_CHARS} printable characters")
    if value is None:
        raise RejectedError(f"fact {key!r}: null is no value: delete the fact instead")
    try:
        text = value_text(value)
    except RejectedError as error:
        raise RejectedError(f"fact {key!r}: {error}") from None
    if len(text.encode()) > MAX_VALUE_BYTES:
        raise RejectedError(f"fact {key!r}: {len(text.encode())} bytes, the most is {MAX_VALUE_BYTES}")
    return text


def _check_room(db: Connection) -> None:
    whole = _snapshot(db, newest(db))
    if len(whole.facts) > MAX_KEYS:
        raise RejectedError(
            f"the fleet has {MAX_KEYS} facts already, and more it may not: delete one, or let it expire"
        )
    if (size := len(dump(whole))) > MAX_TOTAL_BYTES:
        raise RejectedError(f"the fleet's facts would be {size} bytes together, the most is {MAX_TOTAL_BYTES}")


def _issued(db: Connection) -> list[int]:
    found = _meta(db, _LOG)
    return [] if found is None else [int(each) for each in json.loads(found)]


def _issue(db: Connection, draw: Draw, above: int = 0) -> int:
    """A new version, above all others; deletions that are older than all versions remembered are forgotten."""
    lock(db, "fleet facts")
    issued = _issued(db)
    version = max(above, issued[-1] if issued else 0) + 1 + draw(STEP)
    issued = [*issued, version][-MAX_ISSUED:]
    _set_meta(db, _LOG, json.dumps(issued))
    db.execute(fleet_facts.delete().where(fleet_facts.c.value.is_(None), fleet_facts.c.version < issued[0]))
    return version


def _meta(db: Connection, key: str) -> str | None:
    found: str | None = db.scalar(_META, {"name": key})
    return found


def _set_meta(db: Connection, key: str, value: str) -> None:
    if not db.execute(update(meta).where(meta.c.key == key).values(value=value)).rowcount:
        db.execute(meta.insert().values(key=key, value=value))
