"""Prometheus' text format. Source: its exposition formats document, version 0.0.4."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from edge_agent.inference.stats import BUCKETS_S, ModelStats

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    """One line. `suffix` is ``_bucket``, ``_sum`` or ``_count`` in a histogram."""

    value: float
    labels: Mapping[str, str]
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric and its samples. `name` is in base units: ``edge_outbox_rows``, ``_seconds``, ``_bytes``, ``_total``."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: tuple[Sample, ...]


def render(families: Iterable[Family]) -> bytes:
    """The families as the text that Prometheus scrapes."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escape(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines.extend(_line(family.name, sample) for sample in family.samples)
    return "".join(f"{line}\n" for line in lines).encode()


def inference_families(stats: Mapping[str, ModelStats]) -> tuple[Family, ...]:
    """What the site's models did."""
    requests = tuple(Sample(s.requests, {"model": name}) for name, s in stats.items())
    failures = tuple(Sample(s.failures, {"model": name}) for name, s in stats.items())
    seconds = tuple(sample for name, s in stats.items() for sample in _histogram(name, s))
    return (
        Family("edge_inference_requests_total", "counter", "Requests to a model.", requests),
        Family("edge_inference_failures_total", "counter", "Requests that a model failed or refused.", failures),
        Family("edge_inference_seconds", "histogram", "Time a request to a model took.", seconds),
    )


def _histogram(name: str, stats: ModelStats) -> list[Sample]:
    bounds = [*(f"{bound:g}" for bound in BUCKETS_S), "+Inf"]
    counts = accumulate(stats.buckets)
    return [
        *(Sample(n, {"model": name, "le": le}, "_bucket") for le, n in zip(bounds, counts, strict=True)),
        Sample(stats.seconds, {"model": name}, "_sum"),
        Sample(stats.requests, {"model": name}, "_count"),
    ]


def _line(name: str, sample: Sample) -> str:
    labels = ",".join(f'{key}="{_escape(value, quoted=True)}"' for key, value in sample.labels.items())
    return f"{name}{sample.suffix}{{{labels}}} {sample.value}" if labels else f"{name}{sample.suffix} {sample.value}"


def _escape(text: str, *, quoted: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quoted else text
