"""Deliberate mistakes, one at a time: a check that never fails is no check."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import edge_agent.memory.entries as site_entries
import edge_hub.ingest.journal as hub_journal
import edge_hub.ingest.thread as hub_ingest
from edge_agent.memory import outbox, retention
from edge_agent.memory.journal import Journal, last_of
from edge_agent.sync_session import SiteSync
from edge_hub.records import registry
from edge_sim.update_breaks import UPDATE_BREAKS, replace
from edge_sync import answers
from edge_sync.documents import Ack, Resume, dump
from edge_sync.rows import LANES, Epoch, chain, chain_start
from edge_sync.topics import down
from edge_sync.uplink import Effect, MoveCursor, Uplink

Break = Callable[[], None]


def _ack_before_commit() -> None:
    """The hub acknowledges what it has not committed yet."""
    store = hub_journal.store_batches
    transact = hub_ingest.Ingest._transact

    def early(self: hub_ingest.Ingest, items: Sequence[Any]) -> None:
        def store_and_ack(db: Any, arrived: Any, now_us: int) -> Any:
            stored = store(db, arrived, now_us)
            for (site, _, _), ack in stored.acks.items():
                self._outgoing.publish(down(site, "ack"), dump(ack))
            return stored

        replace(hub_ingest, "store_batches", store_and_ack)
        transact(self, items)

    replace(hub_ingest.Ingest, "_transact", early)


def _epoch_per_disk() -> None:
    """A process goes on with the epoch that its disk knows, and with its numbers."""
    begin = Journal._begin_epoch

    def go_on(self: Journal) -> None:
        row = self._connection.execute("SELECT epoch, ord FROM epochs ORDER BY ord DESC LIMIT 1").fetchone()
        if row is None:
            begin(self)
            return
        self.epoch, self.order = Epoch(row[0]), row[1]
        self._tails = {}
        for lane in LANES:
            last = last_of(self._connection, row[0], lane)
            at = outbox.hash_at(self._connection, (row[0], lane), last) or chain_start(row[0], lane)
            self._tails[lane] = site_entries.Tail(last, at)

    replace(Journal, "_begin_epoch", go_on)


def _ack_moves_back() -> None:
    """An old ack that comes late moves a cursor back."""
    ack = Uplink.ack

    def back(self: Uplink, document: Ack, now: float) -> list[Effect]:
        stream = (document.epoch, document.lane)
        flow = self._flows.get(stream)
        if self.state == "open" and flow is not None and flow.resumed and document.seq < flow.acked:
            flow.acked = flow.sent = document.seq
            flow.in_flight = []
            return [MoveCursor(stream, document.seq)]
        return ack(self, document, now)

    replace(Uplink, "ack", back)


def _gap_not_recorded() -> None:
    """The hub moves on over a gap and does not note it."""
    replace(hub_journal, "put_gap", lambda *_args, **_named: None)


def _evict_without_gap() -> None:
    """The site drops what the hub does not have, and does not say so."""
    replace(retention, "declare", lambda *_args, **_named: None)


def _retained_as_truth() -> None:
    """The hub believes whatever presence it hears last, also one that an older session left behind."""

    def believe(db: Any, _now_us: int, site: str, document: Any, _retained: bool) -> bool:
        from edge_hub.database.schema import sites

        values = {"online": document.online, "epoch": document.epoch, "session": document.session}
        db.execute(sites.update().where(sites.c.site == site).values(**values))
        return True

    replace(registry, "presence", believe)


def _queue_as_outbox() -> None:
    """The site takes the broker's yes for the hub's."""
    send = SiteSync._send

    def trusting(self: SiteSync, now: float) -> None:
        sent: Callable[..., None] = self._uplink.sent

        def sent_and_done(stream: Any, last: int, size_bytes: int, at: float) -> None:
            sent(stream, last, size_bytes, at)
            self._perform(self._uplink.ack(Ack(epoch=stream[0], lane=stream[1], seq=last), at))

        replace(self._uplink, "sent", sent_and_done)
        try:
            send(self, now)
        finally:
            replace(self._uplink, "sent", sent)

    replace(SiteSync, "_send", trusting)


def _chain_skips_a_row() -> None:
    """Every tenth row is left out of the hash chain."""
    count = 0

    def skipping(before: bytes, raw: bytes) -> bytes:
        nonlocal count
        count += 1
        return before if count % 10 == 0 else chain(before, raw)

    replace(site_entries, "chain", skipping)


def _high_without_rows() -> None:
    """The hub moves a stream's end over a row that it did not store."""
    store = hub_journal._Work._store

    def forgetful(self: Any, key: Any, verdict: Any) -> None:
        rows = verdict.rows[:-1] if len(verdict.rows) > 3 else verdict.rows
        store(self, key, dataclasses.replace(verdict, rows=rows))

    replace(hub_journal._Work, "_store", forgetful)


def _resume_ignored_back() -> None:
    """A site that thinks it knows better does not go back to where the hub's resume says."""
    resume = Uplink.resume

    def stubborn(self: Uplink, document: Resume, now: float) -> list[Effect]:
        cursors = {
            epoch: {lane: max(seq, self.acked((epoch, lane))) for lane, seq in lanes.items()}
            for epoch, lanes in document.cursors.items()
        }
        return resume(self, document.model_copy(update={"cursors": cursors}), now)

    replace(Uplink, "resume", stubborn)


def _evicts_alarms_first() -> None:
    """When room is needed, alarms go before telemetry."""
    replace(retention, "LANES", tuple(reversed(LANES)))


def _trim_unacked() -> None:
    """Rows behind the acknowledged ones are dropped with them."""
    replace(retention, "_ACKED", "c.acked + 5")


def _anybody_answers() -> None:
    """A site takes whatever claims to be its hub's answer."""
    replace(answers, "_is_of", lambda *_: True)


BREAKS: dict[str, Break] = {
    "ack-before-commit": _ack_before_commit,
    "ack-moves-back": _ack_moves_back,
    "anybody-answers": _anybody_answers,
    "chain-skips-a-row": _chain_skips_a_row,
    "epoch-per-disk": _epoch_per_disk,
    "evict-without-gap": _evict_without_gap,
    "evicts-alarms-first": _evicts_alarms_first,
    "gap-not-recorded": _gap_not_recorded,
    "high-without-rows": _high_without_rows,
    "queue-as-outbox": _queue_as_outbox,
    "resume-ignored": _resume_ignored_back,
    "retained-as-truth": _retained_as_truth,
    "trim-unacked": _trim_unacked,
    **UPDATE_BREAKS,
}
"""Name → what switches it on, for the rest of the process."""
