"""What a site makes of a desired document, pure: refuse it, fetch what it needs, put it on, report.

    idle ──desired()──► downloading ──have()──► staged ──activated()──► active
                                                     └───failed()─────► failed      (the old release runs on)
    active ──rolled_back()──► rolled_back                                           (the release before runs again)

The shell (`edge_agent.update`) verified the signature and owns disk, models and time. State table: sync/SPEC.md.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from edge_models.errors import RejectedError
from edge_sync.documents import Delta, Desired, Reported
from edge_sync.release import Artifact, Release

State = Literal["active", "downloading", "staged", "failed", "rolled_back"]


@dataclass(frozen=True, slots=True)
class Fetch:
    """These artifacts are needed; call `have` when all of them are whole and verified."""

    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Patch:
    """A delta is here: make the target of it and its base, then call `have` for the target, or `no_patch`."""

    base: str
    target: str
    digest: str
    size: int
    """Of the target, in bytes."""


@dataclass(frozen=True, slots=True)
class Activate:
    """Everything is here: check it and switch to it, then call `activated` or `failed`."""

    release: Release
    generation: int


@dataclass(frozen=True, slots=True)
class Report:
    """Publish this retained document."""

    reported: Reported


Effect = Fetch | Patch | Activate | Report

MAX_AHEAD = 2**32
"""A generation may be so far above the last one, no further: they end at 2**53, and whoever stole a director's key must
not use them up."""

MayRun = Callable[[Release], None]
"""Raises `RejectedError` where the operator has not signed what of a release runs at this site."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a site stands: what runs, and what it has acted on before."""

    release: int
    """What runs."""
    generation: int
    """Of the newest desired document that is settled: it runs, or it was refused."""
    floor: int
    """The highest generation ever acted on: older ones are replays."""
    refused: str | None = None
    """Why the settled one does not run, None where it does."""
    state: Literal["failed", "rolled_back"] = "failed"
    """Where it does not: whether it ran for a while."""


class Updater:
    """One site's way from the release it runs to the one it should run."""

    def __init__(self, site: str, labels: Mapping[str, str], standing: Standing) -> None:
        """`standing` is how the site stood when its last process ended."""
        self._site, self._labels = site, dict(labels)
        self.release = standing.release
        self.generation = standing.generation
        self._floor = standing.floor
        self.state: State = "active" if standing.refused is None else standing.state
        self._target: Release | None = None
        self._reason: str | None = standing.refused
        self._missing: set[str] = set()
        """Artifacts of the target that are not on disk; those in `_deltas` come by a delta."""
        self._deltas: dict[str, tuple[Delta, Artifact]] = {}

    def news(self, document: Desired) -> bool:
        """Whether a desired document whose signature holds says something new. Raises `RejectedError` as `desired`."""
        if document.site != self._site:
            raise RejectedError(f"desired: is for site {document.site[:63]!r}, this is {self._site!r}")
        if document.generation < self._floor:
            raise RejectedError(f"desired: generation {document.generation} is older than {self._floor}")
        if document.generation > self._floor + MAX_AHEAD:
            raise RejectedError(f"desired: generation {document.generation} is too far above {self._floor}")
        return document.generation != self.generation

    def desired(self, document: Desired, have: Collection[str], may_run: MayRun) -> list[Effect]:
        """A desired document whose signature holds; `have` are the digests on disk. Raises `RejectedError`.

        Nothing changes where it is refused: what was not signed yet may be so when it comes again.

        One older than any that was acted on is refused; the one that is settled, or being worked on, comes again
        whenever the hub says it anew: nothing new. One that was acted on and is not what runs (its bytes were
        damaged since) is acted on again.
        """
        if not self.news(document):
            return []
        try:
            target = Release.model_validate(document.release)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RejectedError(f"desired: release: {where}: {first['msg']}") from None
        part = target.for_site(self._labels)
        may_run(part)
        self.generation = self._floor = document.generation
        self._target, self._reason = target, None
        undescribed = {d for a in part.agents_for(self._labels) for d in (a.bundle, a.policy)} - set(part.artifacts)
        if undescribed:
            return self.failed(f"the release does not describe artifact {sorted(undescribed)[0]}")
        self._missing = set(part.artifacts) - set(have)
        self._deltas = _usable(document.deltas, self._missing, have)
        if self._missing:
            self.state = "downloading"
            return [Fetch(tuple(sorted(self.wanted()))), self.report()]
        return self._stage()

    def have(self, digest: str) -> list[Effect]:
        """An artifact, or a delta, is whole on disk and its sha256 is right."""
        if self.state != "downloading" or self._target is None:
            return []
        for target, (delta, _) in self._deltas.items():
            if delta.digest == digest and target in self._missing:
                return [Patch(delta.base, target, digest, self._target.artifacts[target].size)]
        if digest not in self._missing:
            return []
        self._deltas.pop(digest, None)
        self._missing.discard(digest)
        return [] if self._missing else self._stage()

    def no_patch(self, target: str) -> list[Effect]:
        """The delta to this artifact did not make it: it is fetched whole."""
        if self._deltas.pop(target, None) is None or target not in self._missing:
            return []
        return [Fetch((target,))]

    def lost(self, digest: str) -> list[Effect]:
        """An artifact of the target that was here is not any more, or not what it was: it is fetched anew."""
        if self._target is None or digest not in self._target.artifacts:
            return []
        self._missing.add(digest)
        self.state = "downloading"
        return [Fetch((digest,)), self.report()]

    def activated(self) -> list[Effect]:
        """The target runs."""
        if self._target is not None:
            self.release = self._target.release
        self.state, self._target = "active", None
        return [self.report()]

    def failed(self, reason: str) -> list[Effect]:
        """The target can't run here; what ran goes on running. Only a newer generation is tried again."""
        self.state, self._reason = "failed", reason[:500]
        return [self.report()]

    def rolled_back(self, release: int, generation: int, reason: str) -> list[Effect]:
        """What was asked for by `generation` disappointed: `release`, which ran before it, runs again.

        What is on its way meanwhile goes on; where nothing is, only a newer generation is tried again.
        """
        self.release = release
        if self._target is None or self.generation == generation:
            self.state, self._reason, self._target = "rolled_back", reason[:500], None
            self.generation = max(self.generation, generation)  # lower where the start passed that one over
        return [self.report()]

    def wanted(self) -> Mapping[str, Artifact]:
        """What still has to be fetched, by digest: artifacts of the target, or the deltas to them."""
        if self._target is None or self.state != "downloading":
            return {}
        wanted = {digest: self._target.artifacts[digest] for digest in self._missing if digest not in self._deltas}
        return wanted | {delta.digest: artifact for delta, artifact in self._deltas.values()}

    def report(self) -> Report:
        """What this site runs, and how far it is with what it should run."""
        target = self._target.release if self._target is not None else None
        return Report(
            Reported(
                release=self.release, generation=self.generation, state=self.state, target=target, reason=self._reason
            )
        )

    def _stage(self) -> list[Effect]:
        if self._target is None:
            return []
        self.state = "staged"
        return [self.report(), Activate(self._target, self.generation)]


def _usable(
    deltas: Iterable[Delta], missing: Collection[str], have: Collection[str]
) -> dict[str, tuple[Delta, Artifact]]:
    """Target → the delta to it, of those that start from what is here. One that is described wrongly is none."""
    found = {}
    for delta in deltas:
        if delta.target in missing and delta.base in have:
            with suppress(ValidationError):
                found[delta.target] = (delta, Artifact.model_validate(delta.artifact))
    return found
