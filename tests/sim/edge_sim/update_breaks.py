"""Deliberate mistakes in how updates are delivered, put on and trusted; as those of `breaks`, one at a time."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.brain import Deployment
from edge_agent.update import slots, switching
from edge_agent.update.blobs import BlobStore
from edge_agent.update.site_updates import SiteUpdates
from edge_agent.update.switching import Switcher
from edge_agent.update.trial import Trial
from edge_sync.chunks import Keep, Receiver, read_chunk
from edge_sync.documents import Desired
from edge_sync.release import Artifact, Release
from edge_sync.updater import Updater

Break = Callable[[], None]


def _chunk_not_hashed() -> None:
    """A site keeps whatever comes as a chunk that it lacks."""

    def trusting(self: Receiver, message: bytes, now: float) -> Keep | None:
        header, data = read_chunk(message)
        fetch = self._fetches.get(header.digest)
        if fetch is None or header.index not in fetch.missing:
            return None
        return Keep(header.digest, header.index, header.offset, data)

    replace(Receiver, "chunk", trusting)


def _chunks_forgotten() -> None:
    """A site does not know which chunks it has already."""
    replace(BlobStore, "held_chunks", lambda *_: [])


def _chunks_believed() -> None:
    """A site believes that all of what once began to arrive is there."""

    def all_of_it(self: BlobStore, digest: str, artifact: Artifact) -> list[int]:
        return list(range(len(artifact.chunks))) if self._part(digest).exists() else []

    replace(BlobStore, "held_chunks", all_of_it)


def _older_generation() -> None:
    """A site takes up whatever document differs from what it runs."""
    replace(Updater, "news", lambda self, document: bool(document.generation != self.generation))


def _not_loaded() -> None:
    """A site puts a release on without loading it, and so without its golden check."""

    def unloaded(self: Switcher, part: Release) -> Deployment:
        return Deployment(part, ())

    replace(Switcher, "_load", unloaded)


def _rename_before_sync() -> None:
    """An artifact gets its name before its bytes are durable."""

    def hasty(self: BlobStore, part: Path, digest: str) -> None:
        part.rename(self._whole(digest))
        fd = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    replace(BlobStore, "_finish", hasty)


def _not_signed() -> None:
    """A site runs whatever its hub says."""
    replace(SiteUpdates, "_check_signed", lambda *_: None)


def _refusal_forgotten() -> None:
    """A site does not remember which generation it could not run."""
    replace(switching, "write_refused", lambda *_: None)
    replace(slots, "write_refused", lambda *_: None)


def _trial_blind() -> None:
    """A trial does not see errors."""
    replace(Trial, "_errors", lambda *_: None)


def _another_sites() -> None:
    """A site does not look for whom a document is."""
    news = Updater.news

    def any_sites(self: Updater, document: Desired) -> bool:
        return news(self, document.model_copy(update={"site": self._site}))

    replace(Updater, "news", any_sites)


UPDATE_BREAKS: dict[str, Break] = {
    "chunk-not-hashed": _chunk_not_hashed,
    "chunks-believed": _chunks_believed,
    "chunks-forgotten": _chunks_forgotten,
    "not-loaded": _not_loaded,
    "not-signed": _not_signed,
    "older-generation": _older_generation,
    "refusal-forgotten": _refusal_forgotten,
    "rename-before-sync": _rename_before_sync,
    "trial-blind": _trial_blind,
}
"""Name → what switches it on, for the rest of the process."""


def replace(owner: Any, name: str, value: Any) -> None:
    """Replace something of production's; a name that is not there any more is a defect of this file."""
    getattr(owner, name)
    setattr(owner, name, value)
