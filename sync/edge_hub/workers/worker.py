"""An ingest worker: a process of its own beside the hub's, which `edge_hub.serve` starts and looks after.

It holds leases on sites (`leases`) and listens to those; what it does with what they say is what a hub does
that is one process.
"""

import json
import logging
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from edge_hub.broker import BrokerFolder
from edge_hub.database.dialect import BulkInsert, lock
from edge_hub.database.schema import leases, sites, workers
from edge_hub.database.store import Store
from edge_hub.folder import HubFolder
from edge_hub.hub import Hub, now_us, worker
from edge_hub.workers.leases import RENEW_S, Plan, View, plan

log = logging.getLogger(__name__)

_LEASE = BulkInsert(leases, update=("worker",))
_LIVE = BulkInsert(workers, update=("until_us", "counters"))


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is told at its start, on its standard input; it holds no secret."""

    number: int
    folder: str
    broker: str
    database: str | None

    @classmethod
    def read(cls, line: bytes) -> "Order":
        """What `line` says."""
        return cls(**json.loads(line))

    def line(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


def take_turn(db: Connection, me: str, now_us: int, counters: Mapping[str, float] | None = None) -> Plan:
    """Renew this worker's life and its leases as `plan` says, in a transaction that may run beside others'."""
    lock(db, "leases")
    view = View(
        frozenset(db.scalars(select(sites.c.site))),
        {row.worker: row.until_us for row in db.execute(select(workers))},
        {row.site: row.worker for row in db.execute(select(leases))},
    )
    turn = plan(me, view, now_us)
    if turn.drop:
        db.execute(leases.delete().where(leases.c.site.in_(turn.drop)))
    db.execute(workers.delete().where(workers.c.until_us <= now_us, workers.c.worker != me))
    _LEASE(db, [(site, me) for site in sorted(turn.take)])
    _LIVE(db, [(me, turn.until_us, json.dumps(counters or {}))])
    return turn


def counted(db: Connection) -> dict[str, dict[str, float]]:
    """What each worker last said that it counted."""
    return {row.worker: row.counters or {} for row in db.execute(select(workers).order_by(workers.c.worker))}


def leave(db: Connection, me: str) -> None:
    """Give everything back, for the others to take at their next turn."""
    lock(db, "leases")
    db.execute(leases.delete().where(leases.c.worker == me))
    db.execute(workers.delete().where(workers.c.worker == me))


class Leaseholder:
    """The thread that takes a worker's turns, and says to which sites to listen whenever that changes."""

    def __init__(
        self,
        store: Store,
        me: str,
        listen: Callable[[frozenset[str]], None],
        counters: Callable[[], Mapping[str, float]] = dict,
        clock_us: Callable[[], int] = now_us,
        renew_s: float = RENEW_S,
    ) -> None:
        self._store, self._me, self._listen, self._counters = store, me, listen, counters
        self._clock_us, self._renew_s = clock_us, renew_s
        self._held: frozenset[str] = frozenset()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, and give everything back where the database is there."""
        self._stopping.set()
        self._thread.join()
        try:
            with self._store.writing(shared=True) as db:
                leave(db, self._me)
        except Exception as error:  # noqa: BLE001 - the leases end by themselves
            log.warning("leases_not_given_back", extra={"worker": self._me, "reason": str(error)})

    def _run(self) -> None:
        failing = False
        while not self._stopping.is_set():
            try:
                with self._store.writing(shared=True) as db:
                    turn = take_turn(db, self._me, self._clock_us(), self._counters())
                failing = False
                self._changed(turn.hold)
            except Exception as error:  # the thread must live, and this worker listens on: another may listen too
                if not failing:
                    log.exception("leases_not_renewed", extra={"worker": self._me, "reason": str(error)})
                failing = True
            self._stopping.wait(self._renew_s)

    def _changed(self, hold: frozenset[str]) -> None:
        if hold != self._held:
            log.info("leases", extra={"worker": self._me, "sites": len(hold), "new": len(hold - self._held)})
            self._held = hold
            self._listen(hold)


def run(order: Order) -> None:
    """Ingest until SIGTERM or SIGINT. Raises what `Hub` raises."""
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    folder = HubFolder(Path(order.folder))
    part = worker(order.number)
    hub = Hub(folder, BrokerFolder(folder.broker), order.broker, order.database, part)
    holder = Leaseholder(hub.store, part.user, hub.listen, hub.metrics.values)
    hub.start()
    holder.start()
    log.info("worker_ready", extra={"worker": part.user})
    stop.wait()
    holder.close()
    hub.close()
