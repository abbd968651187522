"""Releases: what may run; and desired documents: what each site should run, signed and numbered."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, update

from edge_hub.database.dialect import BulkInsert
from edge_hub.database.schema import artifacts, desired, releases, sites
from edge_hub.database.store import Store, TakenError, UnknownError
from edge_hub.delivery.deltas import Pair, for_pairs
from edge_hub.delivery.trust import unsigned
from edge_hub.records import audit
from edge_hub.records.registry import row_of
from edge_models.errors import RejectedError
from edge_sync.documents import DESIRED_TYPE, MAX_DOCUMENT_BYTES, Delta, Desired, Reported, dump
from edge_sync.release import Artifact, Release
from edge_sync.signing import sign
from edge_sync.trust.paths import AGENTS, Kind, parts_of

log = logging.getLogger(__name__)

MAX_BELIEVED = 2**52
"""A site that reports this generation or a higher one is not believed: no hub counts so far, and needs room above."""

MAX_RAISES = 10
RAISES_US = 600_000_000
"""A site's document is signed above what it reports so often in so long: an honest one needs it once or twice."""

_ROOM_BYTES = 1024
"""For what a desired document holds besides its release."""

_SET_ARTIFACT = BulkInsert(artifacts, update=("size",))
_SET_DESIRED = BulkInsert(desired, update=("generation", "release", "envelope"))


@dataclass(frozen=True, slots=True)
class Pushed:
    """A site, and the generation of its new desired document."""

    site: str
    generation: int


class Releases:
    """Takes releases in and pushes them. `publish` is told the site whose desired document is new."""

    def __init__(
        self,
        store: Store,
        key: Path,
        publish: Callable[[str], None],
        now_us: Callable[[], int],
        make_deltas: Callable[[Iterable[Pair]], None] = lambda _: None,
    ) -> None:
        """`make_deltas` is asked, before a push, to make those that it will name."""
        self._store, self._key, self._make_deltas = store, key, make_deltas
        self._publish, self._now_us = publish, now_us
        self._raised: dict[str, tuple[int, int]] = {}
        """Site → since when raises are counted, and how many there were."""

    def add_artifact(self, digest: str, artifact: Artifact, who: str) -> None:
        """The blobs hold these bytes now."""
        with self._store.writing() as db:
            _SET_ARTIFACT(db, [(digest, None, artifact.size, artifact.model_dump_json())])
            audit.note(db, self._now_us(), who, "artifact stored", {"digest": digest, "size": artifact.size})

    def has_artifact(self, digest: str) -> bool:
        """Whether its bytes are here."""
        with self._store.reading() as db:
            return db.scalar(select(artifacts.c.digest).where(artifacts.c.digest == digest)) is not None

    def create(self, release: Release, who: str) -> None:
        """Take a release in. Raises `TakenError` for a number that is taken, `RejectedError` for one that can't run."""
        if release.release < 1:
            raise RejectedError("release: its number begins at 1")
        document = release.model_dump(mode="json")
        size = len(release.model_dump_json())
        if size > MAX_DOCUMENT_BYTES - _ROOM_BYTES:
            raise RejectedError(
                f"release {release.release}: {size} bytes, the most is {MAX_DOCUMENT_BYTES - _ROOM_BYTES}"
            )
        for agent in release.agents:
            for digest in (agent.bundle, agent.policy):
                if digest not in release.artifacts:
                    raise RejectedError(
                        f"release {release.release}: agent {agent.name!r}: {digest[:80]!r} is none of its artifacts"
                    )
        with self._store.writing() as db:
            if db.scalar(select(releases.c.release).where(releases.c.release == release.release)) is not None:
                raise TakenError(f"release {release.release} exists already: give the next one a higher number")
            for digest, artifact in release.artifacts.items():
                _check_artifact(db, release.release, digest, artifact)
                named = (artifacts.c.digest == digest) & artifacts.c.name.is_(None)
                db.execute(update(artifacts).where(named).values(name=artifact.name))
            now_us = self._now_us()
            db.execute(releases.insert().values(release=release.release, document=document, created_us=now_us))
            audit.note(db, now_us, who, "release created", {"release": release.release})

    def get(self, number: int) -> dict[str, Any]:
        """A release's document. Raises `UnknownError`."""
        with self._store.reading() as db:
            return _document(db, number)

    def envelope(self, site: str) -> bytes | None:
        """The site's signed desired document; None where nothing was pushed to it. Raises `UnknownError`."""
        with self._store.reading() as db:
            row_of(db, site)
            return envelope(db, site)

    def all(self) -> list[dict[str, Any]]:
        """The releases, newest first: number, agents, when."""
        with self._store.reading() as db:
            rows = db.execute(select(releases).order_by(releases.c.release.desc()).limit(1000)).all()
        return [
            {
                "release": row.release,
                "agents": [agent.name for agent in Release.model_validate(row.document).agents],
                "artifacts": len(row.document["artifacts"]),
                "created_us": row.created_us,
            }
            for row in rows
        ]

    def push(self, number: int, names: Sequence[str] | None, who: str) -> list[Pushed]:
        """Make this release what these sites (None: all) should run. Raises `UnknownError` for a site or release."""
        pushed = []
        with self._store.reading() as db:
            run = _running(db, names)
            pairs = {pair for release in set(run.values()) for pair in _pairs(db, release, number)}
        self._make_deltas(pairs)
        with self._store.writing() as db:
            document = _document(db, number)
            _check_signed(db, Release.model_validate(document))
            run = _running(db, names)
            deltas = {release: for_pairs(db, _pairs(db, release, number)) for release in set(run.values())}
            registered = set(db.scalars(select(sites.c.site)))
            wanted = sorted(registered if names is None else set(names))
            if unknown := [site for site in wanted if site not in registered]:
                raise UnknownError(f"no site {unknown[0]!r} is registered at this hub")
            now_us = self._now_us()
            generations = _generations(db)
            for site in wanted:
                generation = generations.get(site, 0) + 1
                wish = Desired(site=site, generation=generation, issued_us=now_us, release=document)
                self._put(db, wish, number, deltas.get(run.get(site), []))
                pushed.append(Pushed(site, generation))
            audit.note(db, now_us, who, "release pushed", {"release": number, "sites": wanted})
        for each in pushed:
            self._publish(each.site)
        return pushed

    def answer(self, db: Connection, site: str, said: Reported) -> bool:
        """A site said what it runs: whether its desired document has to be published, signed anew or again.

        Again where the site has not heard of it: a broker says yes and drops. Anew where the site acted on a generation
        that this hub has not given, or has given to another release: a hub that was restored from an older backup.
        Without it the site would refuse whatever the hub wants.
        """
        wanted = db.execute(select(desired.c.generation, desired.c.release).where(desired.c.site == site)).first()
        if wanted is None:
            return False
        if said.generation < wanted.generation:
            return True
        runs = said.target if said.target is not None else said.release if said.state == "active" else wanted.release
        same = said.generation == wanted.generation and runs == wanted.release
        return not same and self.raise_above(db, site, said.generation)

    def raise_above(self, db: Connection, site: str, generation: int) -> bool:
        """Sign the site's desired document again, above `generation`; False where it is, or there is none.

        A generation from `MAX_BELIEVED` on changes nothing: the site errs, and only itself has the damage. Nor does one
        of a site that reports more than `MAX_RAISES` such in `RAISES_US`: the audit may not grow by what it says.
        """
        held = db.execute(select(desired).where(desired.c.site == site)).first()
        if held is None or generation < held.generation:
            return False
        if generation >= MAX_BELIEVED:
            log.error("generation_not_believed", extra={"site": site, "generation": generation})
            return False
        now_us = self._now_us()
        if not self._may_raise(site, now_us):
            return False
        wish = Desired(site=site, generation=generation + 1, issued_us=now_us, release=_document(db, held.release))
        runs = _running(db, [site]).get(site)
        self._put(db, wish, held.release, for_pairs(db, _pairs(db, runs, held.release)))
        detail = {"site": site, "reported": generation, "from": held.generation, "to": generation + 1}
        audit.note(db, now_us, site, "generation raised", detail)
        return True

    def _may_raise(self, site: str, now_us: int) -> bool:
        since_us, times = self._raised.get(site, (now_us, 0))
        if not 0 <= now_us - since_us < RAISES_US:
            since_us, times = now_us, 0
        self._raised[site] = (since_us, times + 1)
        return times < MAX_RAISES

    def _put(self, db: Connection, wish: Desired, number: int, deltas: Sequence[Delta]) -> None:
        text = dump(wish.model_copy(update={"deltas": list(deltas)}))
        if len(text) > MAX_DOCUMENT_BYTES:  # it is fetched whole
            text = dump(wish)
        _SET_DESIRED(db, [(wish.site, wish.generation, number, sign(text, DESIRED_TYPE, self._key))])


def envelope(db: Connection, site: str) -> bytes | None:
    """The site's signed desired document, as published; None where there is none."""
    found: bytes | None = db.scalar(select(desired.c.envelope).where(desired.c.site == site))
    return found


def wanted_sites(db: Connection) -> Sequence[str]:
    """The sites that have a desired document."""
    return db.scalars(select(desired.c.site).order_by(desired.c.site)).all()


def _generations(db: Connection) -> dict[str, int]:
    """The highest generation each site was ever given or has said it saw, so that a new one is above it."""
    highest: dict[str, int] = {}
    for table in (sites, desired):
        query = select(table.c.site, table.c.generation).where(table.c.generation < MAX_BELIEVED)
        for site, generation in db.execute(query):
            highest[site] = max(generation, highest.get(site, 0))
    return highest


def _running(db: Connection, names: Sequence[str] | None) -> dict[str, int | None]:
    """Site → the release it says it runs, of these sites (None: all)."""
    asked = None if names is None else set(names)
    found = db.execute(select(sites.c.site, sites.c.release))
    return {row.site: row.release for row in found if asked is None or row.site in asked}


def _pairs(db: Connection, runs: int | None, number: int) -> list[Pair]:
    """For each bundle that release `number` brings to a site, the one that it has under the same agent's name."""
    held = db.scalar(select(releases.c.document).where(releases.c.release == runs)) if runs is not None else None
    if held is None:
        return []
    has = {agent.name: agent.bundle for agent in Release.model_validate(held).agents}
    wanted = {agent.name: agent.bundle for agent in Release.model_validate(_document(db, number)).agents}
    new = {name: bundle for name, bundle in wanted.items() if name in has and bundle not in has.values()}
    return sorted((has[name], bundle) for name, bundle in new.items())


def _document(db: Connection, number: int) -> dict[str, Any]:
    document = db.scalar(select(releases.c.document).where(releases.c.release == number))
    if document is None:
        raise UnknownError(f"there is no release {number} at this hub")
    return dict(document)


def _check_signed(db: Connection, release: Release) -> None:
    """Sites would refuse it."""
    wanted: dict[tuple[Kind, str], str] = {(AGENTS, release.document_digest): "its agents document"}
    for agent in release.agents:
        for part, what in zip(parts_of(agent), ("bundle", "policy"), strict=True):
            wanted[part] = f"{what} {release.artifacts[part[1]].name} of agent {agent.name!r}"
    if (missing := unsigned(db, wanted)) is not None:
        raise RejectedError(
            f"release {release.release}: {missing} is not signed, or was withdrawn: "
            "`edge-agent release create --trust DIR` signs what never was"
        )


def _check_artifact(db: Connection, number: int, digest: str, artifact: Artifact) -> None:
    held = db.execute(select(artifacts.c.size, artifacts.c.document).where(artifacts.c.digest == digest)).first()
    if held is None:
        raise RejectedError(f"release {number}: artifact {digest} ({artifact.name}) was not uploaded")
    if held.size != artifact.size or held.document["chunks"] != artifact.chunks:
        raise RejectedError(f"release {number}: artifact {digest} ({artifact.name}) is described wrongly")
