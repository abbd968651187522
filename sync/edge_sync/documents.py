"""The JSON documents of the wire. Unknown fields are kept, so that an older peer can pass a newer document on."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_models.errors import RejectedError
from edge_sync.rows import Lane

MAX_DOCUMENT_BYTES = 256 * 1024
"""Of any JSON document on the wire."""

DESIRED_TYPE = "application/vnd.edge-agent.desired+json"
"""DSSE payload type of a `Desired`."""

EPOCHS_PER_PAGE = 200
"""Epochs in one hello: 200 need about 60 KB."""

EpochField = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
SeqField = Annotated[int, Field(ge=0, lt=2**53)]
DigestField = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
LaneSeqs = dict[Lane, SeqField]
"""Lane → a sequence number; a lane with none is left out."""


class Document(BaseModel):
    """A document as decoded from the wire."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Presence(Document):
    """`up/presence`, retained and the will: `session` grows, so that the will of an older session is ignored."""

    online: bool
    epoch: EpochField
    session: SeqField


class EpochState(Document):
    """What a site holds of one epoch. `order` grows with every epoch of the site."""

    epoch: EpochField
    order: SeqField
    last: LaneSeqs
    evicted: LaneSeqs = {}


class Heartbeat(Document):
    """`up/heartbeat`, retained: enough for the hub to name what it never received.

    All epochs that the site holds above the order `after` are in it. `facts` is the version of the fleet's facts here.
    """

    at_us: int
    after: SeqField = 0
    epochs: list[EpochState]
    versions: dict[str, str] = {}
    facts: SeqField = 0


class Hello(Document):
    """`up/hello`: asks where to resume each of these epochs.

    All that the site holds above the order `after` are in it, up to the last one named; in the last page up to the end.
    """

    sync: Annotated[str, Field(max_length=64)]
    page: Annotated[int, Field(ge=1)] = 1
    pages: Annotated[int, Field(ge=1, le=1000)] = 1
    after: SeqField = 0
    epochs: Annotated[list[EpochState], Field(max_length=EPOCHS_PER_PAGE)]
    facts: SeqField = 0
    lost: bool = False
    """The site has no memory: it asks for what the hub can give back of it."""
    asks: bool = False
    """The site asks for the same, and says nothing of what it holds: its memory is behind."""


class Resume(Document):
    """`down/resume`: the end of the contiguous prefix the hub holds of each lane; may be behind an earlier ack."""

    sync: Annotated[str, Field(max_length=64)]
    cursors: dict[EpochField, LaneSeqs]


class Ack(Document):
    """`down/ack`: everything of this stream up to `seq` is durable at the hub. `fork`: it holds other rows there."""

    epoch: EpochField
    lane: Lane
    seq: SeqField
    fork: bool = False


class Reported(Document):
    """`up/reported`, retained: what the site runs, and how far it is with what it should run."""

    release: SeqField
    generation: SeqField
    state: Annotated[str, Field(max_length=32)]
    target: SeqField | None = None
    reason: str | None = None
    metrics: dict[str, Any] = {}
    trust: Annotated[dict[str, SeqField], Field(max_length=16)] = {}
    """Role → version of the trust metadata that the site last verified."""
    hold: Annotated[str | None, Field(max_length=200)] = None
    """Why the site takes nothing new; None where it does."""
    on_trial: bool = False
    """Whether the release that runs is not confirmed yet: it may still go back."""
    behind_s: SeqField = 0
    """By how much the site's clock is surely behind."""


class Want(Document):
    """`up/want`: the chunks of one artifact that a site lacks, as [first, last] index pairs."""

    digest: DigestField
    missing: Annotated[list[tuple[SeqField, SeqField]], Field(max_length=4096)]
    bytes_per_s: SeqField = 0


class Delta(Document):
    """A shorter way to an artifact of the release, for a site that has `base`. Digests are of whole files."""

    base: DigestField
    target: DigestField
    digest: DigestField
    """Of the delta itself, which is an artifact like others."""
    artifact: dict[str, Any]
    """How to verify its chunks."""


class Desired(Document):
    """The payload of the signed `down/desired`: what this site should run. `generation` only grows."""

    site: str
    generation: SeqField
    issued_us: int
    release: dict[str, Any]
    deltas: Annotated[list[Delta], Field(max_length=100)] = []
    """Nobody needs them: what they make is verified by its own digest, and fetched whole where one does not help."""


D = TypeVar("D", bound=Document)


def dump(document: Document) -> bytes:
    """The document as JSON."""
    return document.model_dump_json(exclude_none=True).encode()


def load(kind: type[D], data: bytes) -> D:
    """`data` as a document of this kind. Raises `RejectedError` naming the field that is wrong."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise RejectedError(f"{kind.__name__.lower()}: {len(data)} bytes, the most is {MAX_DOCUMENT_BYTES}")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:200]  # it may repeat what was sent
        raise RejectedError(f"{kind.__name__.lower()}: {where or 'document'}: {first['msg']}") from None


TimeField = Annotated[int, Field(ge=0, lt=2**63)]
"""UTC microseconds."""

KeyField = Annotated[str, Field(min_length=1, max_length=200)]
"""What a fact is called."""


class FleetFact(Document):
    """A fact of the fleet as of one version of its log; without a value, its deletion."""

    key: KeyField
    value: Any = None
    version: SeqField
    expires_at: TimeField | None = None


class FleetFacts(Document):
    """The payload of the signed `down/facts`: what all sites are told, as of `version`.

    A snapshot is all of it. A delta is what changed since the version `after`; `past` names the versions of the log
    between the two: it fits where a site has `after` or one of these.
    """

    after: SeqField
    version: SeqField
    snapshot: bool
    facts: Annotated[list[FleetFact], Field(max_length=2000)]
    past: Annotated[list[SeqField], Field(max_length=2000)] = []


class KnownFact(Document):
    """A fact that a site once knew. `origin` is the record that set it, `order` that of its epoch, where known."""

    key: KeyField
    value: Any = None
    expires_at: TimeField | None = None
    origin: Annotated[str, Field(max_length=100)]
    order: SeqField = 0


class Tail(Document):
    """The newest records of one stream: an epoch, its order at its site, and a journal message in base64."""

    order: SeqField
    batch: Annotated[str, Field(max_length=MAX_DOCUMENT_BYTES)]


class Memory(Document):
    """The payload of the signed `down/memory`: what the hub gives back to a site that lost its memory.

    It answers the hello with this `sync`. `order` is the highest of an epoch that the hub knows of this site,
    `left_out` the number of facts there was no room for. Tails come oldest epoch first.
    """

    site: str
    sync: Annotated[str, Field(max_length=64)]
    order: SeqField = 0
    facts: Annotated[list[KnownFact], Field(max_length=500)] = []
    left_out: SeqField = 0
    batches: Annotated[list[Tail], Field(max_length=100)] = []
