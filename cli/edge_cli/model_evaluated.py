"""What `edge-agent model evaluate` finds, and how it says it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from edge_models.build.data import load_samples
from edge_models.build.measure import agreement, measure
from edge_models.build.report import ReportVariant, report
from edge_models.build.samples import Samples
from edge_models.build.speed import Speed, one_run, peak_rss_mb, speeds
from edge_models.build.times import kept_times
from edge_models.build.workdir import FLOAT, SHEET, Gates, open_workdir
from edge_models.bundle import read_bundle
from edge_models.contract import Contract
from edge_models.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Found:
    """Every graph that was measured, on the same samples; the first is what the others are compared with."""

    contract: Contract
    samples: Samples
    variants: tuple[ReportVariant, ...]
    about: Mapping[str, str]
    gates: Gates | None = None
    kept_times: bool = False
    """Whether the times are those that `model quantize` measured, on the same samples and machine."""

    def agreement(self, variant: ReportVariant) -> float:
        """With the first."""
        return agreement(self.contract, variant.measured.answers, self.variants[0].measured.answers)

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        told = [
            {
                "name": each.name,
                "metrics": each.measured.metrics,
                "confusion": each.measured.confusion,
                "per_class": each.measured.per_class,
                "agreement": self.agreement(each),
                "speed": None if each.speed is None else asdict(each.speed),
                "peak_rss_mb": each.peak_rss_mb,
                "graph_bytes": each.size_bytes,
            }
            for each in self.variants
        ]
        return {"samples": len(self.samples), "kept_times": self.kept_times, "variants": told}


@dataclass(frozen=True, slots=True)
class _Graph:
    name: str
    graph: bytes
    files: Mapping[str, bytes]
    scheme: str = ""
    chosen: bool = False
    refused: str | None = None


def evaluated(what: Path, data_file: Path, against: Path | None) -> Found:
    """Measure a bundle, or every variant of a working directory, and `against` before it.

    Raises `ConfigError` and `RejectedError` naming the file and what is wrong.
    """
    gates = work = None
    if (what / SHEET).is_file():
        work = open_workdir(what)
        sheet, files = work.sheet, work.files()
        contract, gates = sheet.contract, sheet.gates
        made = {FLOAT: {"scheme": "none"}} | work.variants()
        graphs = [
            _Graph(name, work.graph(name), files, str(facts["scheme"]), name == sheet.chosen, facts.get("refused"))
            for name, facts in made.items()
        ]
        about = {"model": f"{contract.name} {contract.version}"}
    else:
        bundle = read_bundle(what)
        contract, graphs = bundle.contract, [_Graph(what.stem, bundle.graph, bundle.files, chosen=True)]
        about = {"model": f"{contract.name} {contract.version}", "digest": bundle.digest}
    if against is not None:
        other = read_bundle(against)
        if (other.contract.task, other.contract.labels) != (contract.task, contract.labels):
            raise ConfigError(f"{against}: another task, or other labels, than {what}: they can't be compared")
        if _other_columns(other.contract, contract):
            raise ConfigError(f"{against}: other columns than {what}, or in another order: they can't be compared")
        if against.stem == graphs[0].name:
            raise ConfigError(f"{against}: named as {what} is: rename one, so that the table can tell them apart")
        graphs.insert(0, _Graph(against.stem, other.graph, other.files))
    samples = load_samples(data_file, contract, graphs[-1].files)
    bytes_of = {each.name: each.graph for each in graphs}
    kept = None if work is None or len(graphs) == 1 else kept_times(work, bytes_of, samples)
    variants = _measured(contract, graphs, samples, kept)
    return Found(contract, samples, variants, about | {"data": data_file.name}, gates, kept is not None)


def _other_columns(theirs: Contract, ours: Contract) -> bool:
    """Whether both say what the values of an input are, and not the same: a contract of old says nothing."""
    pairs = [
        (one, other) for one, other in zip(theirs.inputs, ours.inputs, strict=False) if one.columns and other.columns
    ]
    return any((one.columns, one.categories) != (other.columns, other.categories) for one, other in pairs)


def _measured(
    contract: Contract, graphs: list[_Graph], samples: Samples, kept: Mapping[str, Speed] | None
) -> tuple[ReportVariant, ...]:
    one, made = one_run(contract, samples.inputs), {each.name: each.graph for each in graphs}
    times = speeds(contract, made, graphs[-1].files, one, base=graphs[0].name) if kept is None else kept
    return tuple(
        ReportVariant(
            name=each.name,
            measured=measure(contract, each.graph, each.files, samples),
            size_bytes=len(each.graph),
            scheme=each.scheme,
            speed=times[each.name],
            peak_rss_mb=peak_rss_mb(each.graph, one),
            refused=each.refused,
            chosen=each.chosen and each is not graphs[0],
        )
        for each in graphs
    )


def compared(found: Found) -> Table:
    """A column a graph."""
    several = len(found.variants) > 1
    table = Table(f"{len(found.samples):,} samples", *(escape(each.name) for each in found.variants))
    for metric in found.variants[0].measured.metrics:
        table.add_row(metric.replace("_", " "), *(f"{e.measured.metrics[metric]:.4f}" for e in found.variants))
    if several:
        table.add_row(
            f"same answer as {escape(found.variants[0].name)}", *(f"{found.agreement(e):.4f}" for e in found.variants)
        )
    speed = [each.speed for each in found.variants if each.speed is not None]
    table.add_row("one sample, one thread, µs, p50", *(f"{each.p50_us:,.1f}" for each in speed))
    table.add_row("  p99", *(f"{each.p99_us:,.1f}" for each in speed))
    if several:
        table.add_row("  time, of the first", *(f"{each.ratio:.2f}" for each in speed))
    table.add_row("a process with it, MB", *(f"{each.peak_rss_mb or 0:,.0f}" for each in found.variants))
    table.add_row("graph, bytes", *(f"{each.size_bytes:,}" for each in found.variants))
    return table


def write_report(found: Found, path: Path) -> None:
    """Write the page. Raises `ConfigError`."""
    page = report(found.variants, found.samples, found.contract, gates=found.gates, about=found.about)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
