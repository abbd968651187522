"""Artifacts in chunks, pure: the hub's sender, which publishes what several sites lack once, and the site's receiver.

Chunks travel at QoS 0: what is lost is asked for again. Guarantees: sync/SPEC.md, section Chunks.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from edge_models.errors import RejectedError
from edge_sync.documents import Want
from edge_sync.release import CHUNK_SIZE_BYTES, MAX_ARTIFACT_BYTES, Artifact

MAGIC = b"EC1"
POOL_S = 0.4
"""How long the hub gathers wishes before it answers. Source: measured, docs/design.md section 6."""

MAX_MESSAGE_BYTES = CHUNK_SIZE_BYTES + 1024

MAX_CHUNKS = MAX_ARTIFACT_BYTES // CHUNK_SIZE_BYTES
"""Of one artifact."""

WANT_AGAIN_S = 3.0
"""A site asks again when no chunk came for so long."""


class ChunkHeader(msgspec.Struct, frozen=True):
    """What stands before a chunk's bytes. `digest` is the artifact's, `size` the artifact's whole size."""

    digest: str
    index: int
    count: int
    offset: int
    size: int


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(ChunkHeader)


def chunk_message(digest: str, index: int, count: int, size: int, data: bytes) -> bytes:
    """The message for one chunk."""
    header = _encode(ChunkHeader(digest, index, count, index * CHUNK_SIZE_BYTES, size))
    return MAGIC + len(header).to_bytes(2, "big") + header + data


def read_chunk(message: bytes) -> tuple[ChunkHeader, bytes]:
    """Header and bytes of a chunk message; the bytes are not verified yet. Raises `RejectedError`."""
    if len(message) > MAX_MESSAGE_BYTES or message[:3] != MAGIC or len(message) < 5:
        raise RejectedError("chunk: is no chunk message")
    end = 5 + int.from_bytes(message[3:5], "big")
    try:
        header = _decoder.decode(message[5:end])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RejectedError(f"chunk: header: {error}") from None
    return header, message[end:]


@dataclass(frozen=True, slots=True)
class Send:
    """Publish this chunk, to one site, or to the fleet where `site` is None."""

    digest: str
    index: int
    site: str | None


@dataclass(slots=True)
class _Job:
    """Who wants which chunks of one artifact; `ready_at` is when pooling ends."""

    ready_at: float
    wishes: dict[str, set[int]] = field(default_factory=dict)
    wanted: Counter[int] = field(default_factory=Counter)
    """By how many sites each chunk is."""

    def wish(self, site: str, wished: set[int]) -> None:
        """What this site lacks now, in place of what it said before."""
        before = self.wishes.pop(site, set())
        if wished:
            self.wishes[site] = wished
        self.wanted.update(wished - before)
        for index in before - wished:
            self.wanted[index] -= 1
            if not self.wanted[index]:
                del self.wanted[index]

    def take(self) -> tuple[int, list[str]]:
        """The chunk that most sites lack, the first of several, and those sites; they lack it no more.

        Most first: a site that comes late lacks what was sent already, and so do others by the time that it is sent
        again.
        """
        index = min(self.wanted, key=lambda each: (-self.wanted[each], each))
        sites = [site for site, wished in self.wishes.items() if index in wished]
        del self.wanted[index]
        for site in sites:
            self.wishes[site].discard(index)
            if not self.wishes[site]:
                del self.wishes[site]
        return index, sites


@dataclass(slots=True)
class _Slow:
    """A site that says how much it can take: what it wants of which artifact, and when it can take the next chunk."""

    byte_rate: int
    free_at: float
    wishes: dict[str, set[int]] = field(default_factory=dict)


class ChunkSender:
    """The hub's side: gathers wishes for a moment, then publishes the union once. `now` is monotonic seconds.

    A site that says how much it can take is served alone, no faster: what it does not take in time would pile up in
    the broker.
    """

    def __init__(
        self, pool_s: float = POOL_S, byte_rate: float | None = None, passed_on_rate: float | None = None
    ) -> None:
        """`byte_rate`: the most bytes of chunks a second; `passed_on_rate`: the most that a broker passes on to all
        sites together. None: no cap."""
        self._pool_s = pool_s
        self._byte_rate, self._passed_on_rate = byte_rate, passed_on_rate
        self._free_at = 0.0
        self._jobs: dict[str, _Job] = {}
        self._slow: dict[str, _Slow] = {}

    def want(self, site: str, want: Want, now: float) -> None:
        """A site's wish replaces its earlier one for that artifact; indices no artifact can have are ignored."""
        wished: set[int] = set()
        for first, last in want.missing:
            wished.update(range(first, min(last + 1, MAX_CHUNKS)))
        if want.bytes_per_s:
            self._want_slowly(site, want, wished, now)
            wished = set()
        elif site in self._slow:
            del self._slow[site]
        self._jobs.setdefault(want.digest, _Job(now + self._pool_s)).wish(site, wished)
        self._drop_empty(want.digest)

    def gone(self, site: str) -> None:
        """The site's link is down: it will ask again when it is back."""
        self._slow.pop(site, None)
        for digest, job in list(self._jobs.items()):
            job.wish(site, set())
            self._drop_empty(digest)

    def next(self, now: float) -> Send | None:
        """The chunk to publish now, or None. Artifacts take turns."""
        if now < self._free_at:
            return None
        send, sites = self._next_slow(now), 1
        if send is None:
            send, sites = self._next_pooled(now)
        if send is not None:
            takes_s = CHUNK_SIZE_BYTES / self._byte_rate if self._byte_rate else 0.0
            if self._passed_on_rate:  # what it can't pass on it keeps in memory, or drops
                takes_s = max(takes_s, sites * CHUNK_SIZE_BYTES / self._passed_on_rate)
            self._free_at = max(now, self._free_at) + takes_s
        return send

    def wake_at(self, now: float) -> float | None:
        """When `next` may have something; None while nobody wants anything."""
        due = [job.ready_at for job in self._jobs.values()] + [slow.free_at for slow in self._slow.values()]
        return max(now, self._free_at, min(due)) if due else None

    def _want_slowly(self, site: str, want: Want, wished: set[int], now: float) -> None:
        slow = self._slow.setdefault(site, _Slow(want.bytes_per_s, now))
        slow.byte_rate = want.bytes_per_s
        slow.wishes[want.digest] = wished
        slow.wishes = {digest: left for digest, left in slow.wishes.items() if left}
        if not slow.wishes:
            del self._slow[site]

    def _next_slow(self, now: float) -> Send | None:
        site = min(self._slow, key=lambda each: self._slow[each].free_at, default=None)
        if site is None or now < self._slow[site].free_at:
            return None
        slow = self._slow[site]
        digest, left = next(iter(slow.wishes.items()))
        index = min(left)
        left.discard(index)
        del slow.wishes[digest]
        if left:
            slow.wishes[digest] = left  # at the end: artifacts take turns
        slow.free_at = now + CHUNK_SIZE_BYTES / slow.byte_rate
        if not slow.wishes:
            del self._slow[site]
        return Send(digest, index, site)

    def _next_pooled(self, now: float) -> tuple[Send | None, int]:
        """The chunk, and how many sites it goes to."""
        for digest, job in list(self._jobs.items()):
            if now < job.ready_at:
                continue
            index, wanting = job.take()
            self._jobs.pop(digest)
            if job.wishes:
                self._jobs[digest] = job
            return Send(digest, index, wanting[0] if len(wanting) == 1 else None), len(wanting)
        return None, 0

    def _drop_empty(self, digest: str) -> None:
        if digest in self._jobs and not self._jobs[digest].wishes:
            del self._jobs[digest]


@dataclass(frozen=True, slots=True)
class Keep:
    """Write these verified bytes at `offset` of the artifact's file, durably, then call `kept`."""

    digest: str
    index: int
    offset: int
    data: bytes


@dataclass(slots=True)
class _Fetch:
    artifact: Artifact
    missing: set[int]
    ask_at: float
    asked: bool = field(default=False)


class Receiver:
    """The site's side: what is still missing, when to ask for it, and whether what came is what was signed."""

    def __init__(self, bytes_per_s: int = 0) -> None:
        """`bytes_per_s`: the most the site can take; 0: no bound of its own."""
        self._bytes_per_s = bytes_per_s
        self._again_s = max(WANT_AGAIN_S, 3 * CHUNK_SIZE_BYTES / bytes_per_s) if bytes_per_s else WANT_AGAIN_S
        self._fetches: dict[str, _Fetch] = {}

    def fetch(self, digest: str, artifact: Artifact, have: Sequence[int], now: float, jitter_s: float) -> None:
        """Begin (or go on) to fetch an artifact of which chunks `have` are on disk."""
        missing = set(range(len(artifact.chunks))) - set(have)
        self._fetches[digest] = _Fetch(artifact, missing, now + jitter_s)

    def drop(self, digest: str) -> None:
        """Not wanted any more."""
        self._fetches.pop(digest, None)

    def wanting(self) -> Mapping[str, int]:
        """Digest → how many chunks it still lacks."""
        return {digest: len(fetch.missing) for digest, fetch in self._fetches.items()}

    def chunk(self, message: bytes, now: float) -> Keep | None:
        """What to do with a chunk message; None where it is not wanted. Raises `RejectedError` where it lies."""
        header, data = read_chunk(message)
        fetch = self._fetches.get(header.digest)
        if fetch is None or header.index not in fetch.missing:
            return None
        if hashlib.sha256(data).hexdigest() != fetch.artifact.chunks[header.index]:
            raise RejectedError(f"chunk {header.index} of {header.digest[:19]}: not the bytes that were signed")
        fetch.ask_at = now + self._again_s
        return Keep(header.digest, header.index, header.index * CHUNK_SIZE_BYTES, data)

    def kept(self, digest: str, index: int) -> bool:
        """The chunk is on disk. True when the artifact is now whole: verify its sha256, then use it."""
        fetch = self._fetches.get(digest)
        if fetch is None:
            return False
        fetch.missing.discard(index)
        return not fetch.missing

    def wishes(self, now: float) -> list[Want]:
        """The wishes to publish now; each is repeated until its chunks came."""
        wants = []
        for digest, fetch in self._fetches.items():
            if fetch.missing and now >= fetch.ask_at:
                fetch.ask_at = now + self._again_s
                wants.append(Want(digest=digest, missing=_ranges(fetch.missing), bytes_per_s=self._bytes_per_s))
        return wants

    def link_up(self, now: float) -> None:
        """The link is back: ask at once for what is missing."""
        for fetch in self._fetches.values():
            fetch.ask_at = now


def _ranges(indices: set[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for i in sorted(indices):
        if ranges and ranges[-1][1] == i - 1:
            ranges[-1] = (ranges[-1][0], i)
        else:
            ranges.append((i, i))
    return ranges[:4096]
