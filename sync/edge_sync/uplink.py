"""The site's side of journal sync, pure: what to say, and which rows to send next.

The shells (`edge_agent.sync_session`: the journal; `edge_agent.uplink`: socket and clock) tell this class what happened
and do what it answers. State table and guarantees: sync/SPEC.md, section Journal sync.

    down ──up()──► greeting ──resume()──► open ──down()──► down
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from edge_sync.documents import EPOCHS_PER_PAGE, Ack, EpochState, Hello, Resume
from edge_sync.rows import LANES, Lane

Stream = tuple[str, Lane]
"""An epoch and one of its lanes."""

WINDOW = 8
"""Batches on their way at once. Source: docs/design.md section 6."""

FULL_BATCH_ROWS = 500
LINGER_S: Mapping[Lane, float] = {"alarm": 0.0, "decision": 1.0, "telemetry": 10.0}
"""How long a row may wait for others to share its batch."""

QUANTUM_BYTES: Mapping[Lane, int] = {"alarm": 512 * 1024, "decision": 256 * 1024, "telemetry": 64 * 1024}
"""Bytes a lane may send a round of the deficit round robin: urgent lanes get more, none starves."""

ACK_TIMEOUT_S = 10.0
"""Without any progress for so long, a stream is sent again from what was acknowledged."""

HELLO_AGAIN_S = (2.0, 5.0, 15.0, 30.0)

STUCK_RESENDS = 3
"""A stream sent again so often without any ack gives way to all others, and has one batch on its way at most."""

STALLED_S = (10.0, 60.0, 300.0)
"""How long a stream that can't be read is left alone, the first, second, … time in a row."""


@dataclass(frozen=True, slots=True)
class SayHello:
    """Publish these hello pages."""

    pages: tuple[Hello, ...]


@dataclass(frozen=True, slots=True)
class MoveCursor:
    """The hub durably holds the stream up to `seq`. May be behind an earlier one only after a resume."""

    stream: Stream
    seq: int


@dataclass(frozen=True, slots=True)
class Forked:
    """The hub holds other rows under this stream's numbers: raise the alarm and begin a new epoch."""

    stream: Stream


Effect = SayHello | MoveCursor | Forked


@dataclass(frozen=True, slots=True)
class Pull:
    """Read a batch of this stream that begins after `after`, publish it, then call `sent`."""

    stream: Stream
    after: int


@dataclass(slots=True)
class _Flow:
    order: int
    last: int = 0
    acked: int = 0
    sent: int = 0
    resumed: bool = False
    forked: bool = False
    since: float = 0.0
    """When the oldest row not yet sent began to wait."""
    progress: float = 0.0
    """When something was last sent into an empty window or acknowledged."""
    in_flight: list[int] = field(default_factory=list)
    """The last seq of each batch on its way."""
    rewound_at: int = -1
    resends: int = 0
    """How often it was sent again since something of it was last acknowledged."""
    stalls: int = 0
    not_before: float = 0.0
    """It can't be read, and is not tried again before this."""


class Uplink:
    """Decides what a site says to its hub about its journal. Every method takes `now` in monotonic seconds."""

    def __init__(self, byte_rate: float | None = None) -> None:
        """`byte_rate`: the most bytes of batches a second, or None for no cap."""
        self.state: Literal["down", "greeting", "open"] = "down"
        self._flows: dict[Stream, _Flow] = {}
        self._orders: dict[str, int] = {}
        self._sync = ""
        self._hello_at = 0.0
        self._hello_tries = 0
        self._hello_said = -HELLO_AGAIN_S[0]
        self._deficit: dict[Lane, int] = dict.fromkeys(LANES, 0)
        self._turn = 0
        self._hurried = False
        self._byte_rate = byte_rate
        self._budget = byte_rate or 0.0
        self._budget_at = 0.0

    def began(self, epoch: str, order: int) -> None:
        """There is this epoch, with records or without: the hub is told, and so knows that older ones are over."""
        self._orders[epoch] = order

    def grew(self, epoch: str, order: int, lane: Lane, last: int, now: float) -> None:
        """The journal's stream now ends at `last`. The first call for a stream introduces it."""
        flow = self._flows.get((epoch, lane))
        if flow is None:
            self._orders[epoch] = order
            flow = self._flows[epoch, lane] = _Flow(order=order, since=now)
            flow.resumed = self.state == "open" and self._began_in_session(epoch, order)
        if flow.last == flow.sent:
            flow.since = now
        flow.last = max(flow.last, last)

    def give_up(self, stream: Stream) -> None:
        """The hub holds other rows under this stream's numbers, as an earlier session found out: send no more of it."""
        self._flows[stream].forked = True

    def _began_in_session(self, epoch: str, order: int) -> bool:
        """Whether a stream's hub cursor is known to be 0: its epoch has other lanes resumed, or is newer than all."""
        known = [f for (e, _), f in self._flows.items() if e == epoch and f.resumed]
        return bool(known) or all(f.order < order for (e, _), f in self._flows.items() if e != epoch)

    def acked(self, stream: Stream) -> int:
        """The stream's cursor as this session knows it."""
        return self._flows[stream].acked if stream in self._flows else 0

    def backlog(self) -> int:
        """Rows not yet acknowledged that the hub can still take."""
        return sum(flow.last - flow.acked for flow in list(self._flows.values()) if not flow.forked)

    def up(self, sync: str, cursors: Mapping[Stream, int], now: float) -> list[Effect]:
        """The link is up and subscribed. `sync` is new for each session; `cursors` are those on the site's disk."""
        self.state, self._sync, self._hello_tries = "greeting", sync, 0
        self._budget_at = now
        for stream, flow in self._flows.items():
            flow.resumed, flow.in_flight = False, []
            flow.acked = flow.sent = cursors.get(stream, flow.acked)
        return self._hello(now)

    def hurry(self) -> None:
        """The site is about to stop: nothing waits for company any more."""
        self._hurried = True

    def down(self) -> None:
        """The link is gone; whatever was on its way may or may not have arrived."""
        self.state = "down"

    def resume(self, document: Resume, now: float) -> list[Effect]:
        """The hub's answer to hello: the only thing that may move a cursor back."""
        if self.state == "down" or document.sync != self._sync:
            return []
        effects: list[Effect] = []
        for stream, flow in self._flows.items():
            if stream[0] not in document.cursors:
                continue
            seq = min(document.cursors[stream[0]].get(stream[1], 0), flow.last)
            flow.acked = flow.sent = seq
            flow.in_flight, flow.resumed, flow.progress, flow.resends = [], True, now, 0
            flow.since = now - LINGER_S[stream[1]]
            effects.append(MoveCursor(stream, seq))
        self.state = "open"
        return effects

    def ack(self, document: Ack, now: float) -> list[Effect]:
        """A cumulative ack: moves a cursor forward only. One that does not move it asks for what it lacks.

        One behind the cursor tells of a hub that was restored: the site asks anew where to resume.
        """
        stream = (document.epoch, document.lane)
        flow = self._flows.get(stream)
        if self.state != "open" or flow is None or not flow.resumed:
            return []
        if flow.forked:
            return []
        if document.fork:
            flow.forked = True
            return [Forked(stream)]
        seq = min(document.seq, flow.last)
        if seq > flow.acked:
            flow.acked, flow.progress, flow.rewound_at, flow.resends = seq, now, -1, 0
            flow.sent = max(flow.sent, seq)
            flow.in_flight = [end for end in flow.in_flight if end > seq]
            return [MoveCursor(stream, seq)]
        if seq == flow.acked and flow.in_flight and flow.rewound_at != seq:
            flow.rewound_at = seq
            self._rewind(flow, now)
        elif seq < flow.acked:
            flow.resumed, flow.in_flight = False, []
            self._hello_tries, self._hello_at = 0, max(now, self._hello_said + HELLO_AGAIN_S[0])
        return []

    def tick(self, now: float) -> list[Effect]:
        """Time passes: a lost hello is said again, a stream without progress is sent again."""
        for flow in self._flows.values():
            if flow.in_flight and now - flow.progress >= ACK_TIMEOUT_S:
                flow.resends += 1
                self._rewind(flow, now)
        greeted = all(flow.resumed for flow in self._flows.values())
        if self.state == "down" or (self.state == "open" and greeted):
            return []
        return self._hello(now) if now >= self._hello_at else []

    def pull(self, now: float) -> Pull | None:
        """The next batch to send, or None: the lanes take turns by deficit round robin, older epochs first."""
        if self.state != "open" or self._in_flight() >= WINDOW or not self._may_spend(now):
            return None
        ready = {lane: stream for lane in LANES if (stream := self._next_of(lane, now)) is not None}
        if not ready:
            return None
        for lane in LANES:
            if lane not in ready:
                self._deficit[lane] = 0
        while True:
            lane = LANES[self._turn % len(LANES)]
            if lane in ready and self._deficit[lane] > 0:
                return Pull(ready[lane], self._flows[ready[lane]].sent)
            self._turn += 1
            lane = LANES[self._turn % len(LANES)]
            if lane in ready:
                self._deficit[lane] = min(self._deficit[lane] + QUANTUM_BYTES[lane], QUANTUM_BYTES[lane])

    def sent(self, stream: Stream, last: int, size_bytes: int, now: float) -> None:
        """A batch that ends at `last` was handed to the link."""
        flow = self._flows[stream]
        flow.stalls = 0
        if not flow.in_flight:
            flow.progress = now
        flow.in_flight.append(last)
        flow.sent, flow.since = last, now
        self._deficit[stream[1]] -= size_bytes
        self._budget -= size_bytes

    def stalled(self, stream: Stream, now: float) -> None:
        """The stream can't be read where it stands: leave it alone for a while, and go on with the others."""
        flow = self._flows[stream]
        flow.not_before = now + STALLED_S[min(flow.stalls, len(STALLED_S) - 1)]
        flow.stalls += 1

    def epochs(self) -> set[str]:
        """Every epoch known here."""
        return set(self._orders)

    def forget(self, epochs: Iterable[str]) -> None:
        """These epochs are over and wholly acknowledged: the site dropped them."""
        gone = set(epochs)
        self._flows = {stream: flow for stream, flow in self._flows.items() if stream[0] not in gone}
        self._orders = {epoch: order for epoch, order in self._orders.items() if epoch not in gone}

    def _next_of(self, lane: Lane, now: float) -> Stream | None:
        best: Stream | None = None
        for stream, flow in self._flows.items():
            waiting = flow.last - flow.sent
            if stream[1] != lane or waiting <= 0 or not flow.resumed or flow.forked or now < flow.not_before:
                continue
            if flow.resends >= STUCK_RESENDS and flow.in_flight:
                continue
            lingers = waiting < FULL_BATCH_ROWS and now - flow.since < LINGER_S[lane]
            if lingers and not self._hurried:
                continue
            if best is None or _rank(flow) < _rank(self._flows[best]):
                best = stream
        return best

    def _rewind(self, flow: _Flow, now: float) -> None:
        flow.sent, flow.in_flight, flow.progress = flow.acked, [], now

    def _in_flight(self) -> int:
        return sum(len(flow.in_flight) for flow in self._flows.values())

    def _may_spend(self, now: float) -> bool:
        if self._byte_rate is None:
            return True
        grown = self._budget + (now - self._budget_at) * self._byte_rate
        self._budget, self._budget_at = min(grown, self._byte_rate), now
        return self._budget > 0

    def _hello(self, now: float) -> list[Effect]:
        self._hello_at = now + HELLO_AGAIN_S[min(self._hello_tries, len(HELLO_AGAIN_S) - 1)]
        self._hello_tries += 1
        self._hello_said = now
        lasts: dict[str, dict[Lane, int]] = {epoch: {} for epoch in self._orders}
        for (epoch, lane), flow in self._flows.items():
            lasts[epoch][lane] = flow.last
        states = [EpochState(epoch=e, order=self._orders[e], last=last) for e, last in lasts.items()]
        states.sort(key=lambda state: state.order)
        pages = [states[i : i + EPOCHS_PER_PAGE] for i in range(0, len(states), EPOCHS_PER_PAGE)] or [[]]
        afters = [0, *(page[-1].order for page in pages[:-1])]
        return [
            SayHello(
                tuple(
                    Hello(sync=self._sync, page=number, pages=len(pages), after=after, epochs=page)
                    for number, (after, page) in enumerate(zip(afters, pages, strict=True), 1)
                )
            )
        ]


def _rank(flow: _Flow) -> tuple[bool, int]:
    """Streams that get nowhere last, then older epochs first."""
    return (flow.resends >= STUCK_RESENDS, flow.order)
