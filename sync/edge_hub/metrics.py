"""Counters of this process and their text for Prometheus. Source: Prometheus text exposition format 0.0.4."""

import threading
from collections.abc import Iterable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

COUNTERS: Mapping[str, str] = {
    "edge_hub_batches_total": "Journal batches stored or found to be held already.",
    "edge_hub_records_total": "Records stored.",
    "edge_hub_quarantined_total": "Messages that could not be taken. Above 0: look into the table `quarantine`.",
    "edge_hub_forks_total": "Batches that differ from what is held under the same numbers.",
    "edge_hub_refused_documents_total": "Documents from sites that could not be read.",
    "edge_hub_dropped_messages_total": "Messages not taken since too much waited; sites send them again.",
    "edge_hub_ingest_transactions_total": "Transactions of the ingest thread.",
    "edge_hub_ingest_failures_total": "Transactions that failed, as on a full disk.",
    "edge_hub_ingest_seconds_total": "Time spent in them.",
    "edge_hub_chunks_sent_total": "Chunks of artifacts published.",
    "edge_hub_chunk_bytes_total": "Bytes of them.",
}

Gauge = tuple[str, str, float]
"""Name, help, value."""


class Metrics:
    """Counters that any thread may raise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, float] = dict.fromkeys(COUNTERS, 0)

    def add(self, name: str, amount: float = 1) -> None:
        """Raise one of `COUNTERS`."""
        with self._lock:
            self._values[name] += amount

    def value(self, name: str) -> float:
        """Where a counter is now."""
        with self._lock:
            return self._values[name]

    def values(self) -> dict[str, float]:
        """Where all of them are now."""
        with self._lock:
            return dict(self._values)

    def render(self, gauges: Iterable[Gauge] = (), workers: Mapping[str, Mapping[str, float]] | None = None) -> str:
        """Everything, for a scraper; with the counters of other processes, by name, beside those of this one."""
        lines = []
        for name, value in self.values().items():
            lines += [f"# HELP {name} {COUNTERS[name]}", f"# TYPE {name} counter", f"{name} {_text(value)}"]
            for worker, counted in (workers or {}).items():
                lines.append(f'{name}{{worker="{worker}"}} {_text(counted.get(name, 0))}')
        for name, text, value in gauges:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {_text(value)}"]
        return "\n".join(lines) + "\n"


def _text(value: float) -> str:
    """All digits of a count: six would let it stand still for a thousand records at a time."""
    return f"{value:.15g}"
