"""Deltas: what changed between two bundles, made once a pair in a process of its own, and sent to all that share it.

A delta is an artifact like others: it lies in the blobs, and travels in chunks. A pair for which the whole is no dearer
is remembered as well.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, tuple_

from edge_hub.database.dialect import BulkInsert
from edge_hub.database.schema import artifacts, deltas
from edge_hub.database.store import Store
from edge_hub.delivery.blobs import Blobs
from edge_models.delta import make_delta
from edge_models.digests import digest_of
from edge_models.errors import KitError, RetryableError
from edge_sync.documents import Delta

log = logging.getLogger(__name__)

MAX_BYTES = 128 * 1024 * 1024
"""Of either bundle: making a delta holds both in memory."""

MAKE_S = 300.0
"""After that the whole is sent."""

Pair = tuple[str, str]
"""Digests: what a site has, and what it should have."""

_SET_ARTIFACT = BulkInsert(artifacts, update=("size",))
_SET_DELTA = BulkInsert(deltas, update=("digest",))


class Deltas:
    """Makes them, and remembers which there are."""

    def __init__(self, store: Store, blobs: Blobs, make: Callable[[Path, Path], bytes] | None = None) -> None:
        """`make` gives the delta between two files, empty where it is not worth it; None: in a child process."""
        self._store, self._blobs, self._made = store, blobs, make or in_child

    def ensure(self, pairs: Iterable[Pair]) -> None:
        """Make the deltas of these pairs that were not made yet; may take seconds each. What fails is left out."""
        wanted = sorted(set(pairs))
        with self._store.reading() as db:
            known = set(_held(db, wanted))
        for pair in wanted:
            if pair not in known:
                self._make(*pair)

    def _make(self, base: str, target: str) -> None:
        before, after = self._blobs.path(base), self._blobs.path(target)
        try:
            if max(before.stat().st_size, after.stat().st_size) > MAX_BYTES:
                return
            made = self._made(before, after)
        except (OSError, RetryableError) as error:  # this hub does not have it, or could not make it
            log.warning("delta_not_made", extra={"base": base, "target": target, "reason": str(error)})
            return
        digest, row = None, None
        if made:
            digest = str(digest_of(made))
            incoming = self._blobs.receive(digest)
            try:
                incoming.feed(made)
                artifact = incoming.finish()
            finally:
                incoming.drop()
            row = (digest, "delta", artifact.size, artifact.model_dump_json())
        with self._store.writing() as db:
            if row is not None:
                _SET_ARTIFACT(db, [row])
            _SET_DELTA(db, [(base, target, digest)])
        log.info("delta_made", extra={"base": base, "target": target, "bytes": len(made)})


def in_child(base: Path, target: Path) -> bytes:
    """The delta, made in a process of its own: it takes seconds and memory. Raises `RetryableError`."""
    try:
        made = subprocess.run(
            [sys.executable, "-m", "edge_hub.delivery.deltas", str(base), str(target)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=MAKE_S,
            check=False,
            env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
        )
    except subprocess.TimeoutExpired:
        raise RetryableError(f"it took longer than {MAKE_S:.0f} s") from None
    if made.returncode != 0:
        raise RetryableError(made.stderr[-300:].decode(errors="replace").strip())
    return made.stdout


def for_pairs(db: Connection, pairs: Iterable[Pair]) -> list[Delta]:
    """The deltas there are for these pairs, as a desired document names them."""
    held = _held(db, sorted(set(pairs)))
    query = select(artifacts.c.digest, artifacts.c.document).where(artifacts.c.digest.in_(list(held.values())))
    described: Mapping[str, Any] = {row.digest: row.document for row in db.execute(query)}
    return [
        Delta(base=base, target=target, digest=digest, artifact=described[digest])
        for (base, target), digest in held.items()
        if digest is not None and digest in described
    ]


def _held(db: Connection, pairs: list[Pair]) -> dict[Pair, str | None]:
    both = tuple_(deltas.c.base, deltas.c.target)
    query = select(deltas).where(both.in_(pairs)).order_by(*deltas.primary_key)
    return {(row.base, row.target): row.digest for row in db.execute(query)}


def _main(base: str, target: str) -> None:
    made = make_delta(Path(base).read_bytes(), Path(target).read_bytes())
    sys.stdout.buffer.write(made or b"")


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except (KitError, OSError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
