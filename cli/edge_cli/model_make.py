"""`edge-agent model import|quantize|evaluate|pack|build`: from anything trained to a measured bundle."""

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from edge_cli.output import FOUND, data, emit_json, show_table, talk
from edge_models.build.catalogue import load_recipe, recipe_names
from edge_models.build.recipe import needs_extra
from edge_models.build.table import precisions
from edge_models.build.workdir import FLOAT, open_workdir
from edge_models.contract import Contract
from edge_models.errors import ConfigError
from edge_models.tensors import TensorSpec, shape_text

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
WorkDir = Annotated[Path, typer.Argument(metavar="DIR", help="What `model import` made.", show_default=False)]
Task = Literal["classification", "embedding", "reading", "tensors"]
Scheme = Literal["auto", "dynamic", "static", "int4", "none"]

MOST_LABELS, MOST_COLUMNS = 12, 40
"""Shown of a model."""

CALIBRATION = 100
"""Samples set apart to calibrate on, where there are twice as many; else a half."""


def build(
    recipe: Annotated[str, typer.Argument(help=f"One of {', '.join(recipe_names())}.")],
    version: Annotated[str | None, typer.Option(help="Which version of the model; the newest by default.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for NAME-VERSION.bundle.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Make a reference model by its recipe, and write its bundle. The same build gives the same digest.

    Example: edge-agent model build trace --version 2 --out bundles
    """
    chosen = load_recipe(recipe)
    number = chosen.version(version)
    with talk.status(f"{recipe} {number}") as status:
        with needs_extra():
            from edge_models.build.make import make  # noqa: PLC0415 - torch and optimum take seconds to import
        built = make(chosen, number, out, lambda remark: status.update(f"{recipe} {number}: {remark}"))
    _say_built(built, as_json)


def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="An .onnx file, a Hugging Face folder or id, a scikit-learn pickle, a torch.jit or torch.export file.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder to work in.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="Of the model; the source's own by default.")] = None,
    version: Annotated[str, typer.Option(help="Of the model.")] = "1",
    task: Annotated[Task | None, typer.Option(help="What it is for; found out by default.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Of a classifier: a,b,c in the order of its scores, or a file, a line each.")
    ] = None,
    dim: Annotated[
        list[str] | None, typer.Option(metavar="INPUT.AXIS=SIZE|NAME", help="What an axis is that has no name.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME:DTYPE:SHAPE", help="Of a torch file, as in window:float32:batch,275."),
    ] = None,
    outputs: Annotated[
        list[str] | None, typer.Option("--output", metavar="NAME", help="Keep these outputs only, in this order.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Of two labels: from which probability of the second on that is the answer; 0.5 by default."),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The tokenizer.json of a model of texts that comes without one.")
    ] = None,
    opset: Annotated[int, typer.Option(help="Of ONNX, where it is exported here.")] = 17,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Open a pickle: it can do anything to this machine.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a working directory of a model that was trained elsewhere: its float graph, and what is known of it.

    Example: edge-agent model import pump.onnx --labels normal,anomaly --out pump
    """
    with talk.status(source) as status:
        with needs_extra():
            from edge_models.build.importing import import_model  # noqa: PLC0415 - torch and optimum take seconds
            from edge_models.build.importing.two_labels import is_lone  # noqa: PLC0415
            from edge_models.build.importing.wanted import parse_dims, parse_inputs  # noqa: PLC0415
        from edge_models.build.workdir import fill, new_workdir  # noqa: PLC0415

        with new_workdir(out) as part:
            sheet, graph, files = import_model(
                source,
                name=name or _name_of(source),
                version=version,
                task=task,
                labels=None if labels is None else _labels(labels),
                opset=opset,
                trust_pickle=trust_pickle,
                dims=parse_dims(dim or ()),
                inputs=parse_inputs(inputs or ()),
                outputs=outputs or (),
                threshold=threshold,
                tokenizer=tokenizer,
                progress=lambda remark: status.update(f"{source}: {remark}"),
            )
            fill(part, sheet, graph, files)
    contract = sheet.contract
    if as_json:
        emit_json(
            {"path": str(out), "contract": contract.to_json(), "about": asdict(sheet.about), "graph_bytes": len(graph)}
        )
        return
    data.print(f"[bold]{escape(contract.name)} {escape(contract.version)}[/]  {contract.task}  {len(graph):,} bytes")
    show_table(contract_table(contract))
    if contract.task == "tensors" and any(is_lone(spec) for spec in contract.outputs):
        talk.print("one number a sample: a classification, if it is a probability: --labels no,yes", markup=False)
    talk.print(f"{out / 'model.yaml'} says what is known of it: add units, labels, limits", markup=False)


def quantize(
    folder: WorkDir,
    data_file: Annotated[
        Path | None,
        typer.Option("--data", help="Samples: .npz, .csv, .jsonl, or a folder of pictures by label."),
    ] = None,
    scheme: Annotated[Scheme, typer.Option(help="`auto` tries what suits the graph, and measures.")] = "auto",
    vnni_only: Annotated[
        bool, typer.Option("--vnni-only", help="Every CPU of the fleet has VNNI: use the full range of int8.")
    ] = False,
    max_metric_drop: Annotated[float | None, typer.Option(help="Of the first metric, against float.")] = None,
    min_agreement: Annotated[float | None, typer.Option(help="Share of samples answered as float does.")] = None,
    min_speedup: Annotated[float | None, typer.Option(help="Float's time over the variant's.")] = None,
    max_size: Annotated[int | None, typer.Option(help="Of the graph, in bytes.")] = None,
    as_json: AsJson = False,
) -> None:
    """Quantize, measure each variant, and keep the best that holds the gates; float where none does.

    Without --data it is only compared with float, on inputs made up by chance. Exit 1 where the scheme that was asked
    for is refused, or nothing is small enough.

    Example: edge-agent model quantize pump --data pump.csv --min-agreement 0.99
    """
    work = open_workdir(folder)
    sheet, files = work.sheet, work.files()
    asked = {
        "max_metric_drop": max_metric_drop,
        "min_agreement": min_agreement,
        "min_speedup": min_speedup,
        "max_size_bytes": max_size,
    }
    gates = replace(sheet.gates, **{name: value for name, value in asked.items() if value is not None})  # type: ignore[arg-type]
    with talk.status(f"{folder}") as status:
        with needs_extra():
            from edge_models.build.choose import choose  # noqa: PLC0415 - optimum takes seconds to import
            from edge_models.build.golden import made_up  # noqa: PLC0415
        from edge_models.build.times import keep_times  # noqa: PLC0415

        samples = _samples(data_file, sheet.contract, files)
        calibration, evaluation = _split(samples)
        choice = choose(
            sheet.contract,
            work.graph(),
            files,
            calibration,
            evaluation if evaluation is not None else made_up(sheet.contract, 20),
            gates,
            scheme=scheme,
            vnni_only=vnni_only,
            progress=lambda remark: status.update(f"{folder}: {remark}"),
        )
    for tried in choice.variants:
        if tried.graph and tried.name != FLOAT:
            work.keep_variant(tried.name, tried.graph, tried.facts())
    if samples is not None and choice.times:
        keep_times(work, {each.name: each.graph for each in choice.variants if each.graph}, samples, choice.times)
    work.write_sheet(replace(sheet, gates=gates, chosen=choice.chosen))
    if as_json:
        emit_json({"chosen": choice.chosen, "variants": [each.facts() for each in choice.variants]})
    else:
        show_table(_tried(choice))
    nothing_holds = choice.chosen == FLOAT and choice.variants[0].refused is not None
    if nothing_holds or (scheme not in ("auto", "none") and choice.chosen == FLOAT):
        raise typer.Exit(FOUND)


def evaluate(
    what: Annotated[Path, typer.Argument(metavar="BUNDLE|DIR", help="A .bundle, or a working directory.")],
    data_file: Annotated[
        Path, typer.Option("--data", help="Samples: .npz, .csv, .jsonl, or a folder of pictures by label.")
    ],
    against: Annotated[Path | None, typer.Option(metavar="BUNDLE", help="Another, to compare with.")] = None,
    report_file: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Write one page to look at.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure quality, time, memory and size on samples: metrics that fit the task, one sample, one thread.

    Example: edge-agent model evaluate pump.bundle --data held-out.csv --report pump.html
    """
    from edge_cli.model_evaluated import compared, evaluated, write_report  # noqa: PLC0415 - only where it is measured

    with talk.status(f"{what}"):
        found = evaluated(what, data_file, against)
    if report_file is not None:
        write_report(found, report_file)
        talk.print(f"report: {report_file}", markup=False)
    if found.kept_times:
        talk.print("times are those that `model quantize` measured on these samples", markup=False)
    if as_json:
        emit_json(found.to_json())
    else:
        show_table(compared(found))


def pack(
    folder: WorkDir,
    out: Annotated[Path, typer.Option(metavar="X.bundle", help="The file to write.", show_default=False)],
    data_file: Annotated[
        Path | None,
        typer.Option("--data", help="Samples to measure on, for the card, and to draw golden samples from."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pack the variant that was chosen, with contract, golden samples and card, into a bundle.

    Example: edge-agent model pack pump --data held-out.csv --out pump-1.bundle
    """
    from edge_models.build.draft import Draft  # noqa: PLC0415

    work = open_workdir(folder)
    sheet, files = work.sheet, work.files()
    scheme = "none" if sheet.chosen == FLOAT else str(work.variants().get(sheet.chosen, {}).get("scheme", "none"))
    with talk.status(f"{folder}") as status:
        with needs_extra():
            from edge_models.build.assemble import assemble  # noqa: PLC0415

        samples = _samples(data_file, sheet.contract, files)
        draft = Draft(sheet, work.graph(), files, None, samples, scheme)
        graph = None if sheet.chosen == FLOAT else work.graph(sheet.chosen)
        built = assemble(draft, graph, out, lambda remark: status.update(f"{folder}: {remark}"))
    _say_built(built, as_json)


def comparison(card: Any) -> Table:
    """Float against what ships: what quantization cost, and what it brought."""
    metrics, size, latency = card["metrics"], card["size"], card["latency"]
    names = precisions(card)
    quantized = names[1:]
    table = Table("held-out", *names, *(f"{name} / float" for name in quantized))
    for metric in metrics.get(FLOAT, {}):
        table.add_row(
            metric.replace("_", " "), *(f"{metrics[name][metric]:.4f}" for name in names), *("",) * len(quantized)
        )
    sizes = [size[f"{name}_bytes"] for name in names]
    table.add_row("graph, bytes", *(f"{each:,}" for each in sizes), *(f"{each / sizes[0]:.2f}" for each in sizes[1:]))
    times = [latency[f"{name}_us"] for name in names]
    ratios = [f"{latency['ratio']:.2f}"] if quantized else []
    table.add_row("one sample, one thread, µs", *(f"{each:,.1f}" for each in times), *ratios)
    if quantized:
        table.add_row("same answer", "", f"{metrics['agreement']:.4f}" if "agreement" in metrics else "", "")
    table.caption = escape(f"{latency['cpu']}, ONNX Runtime {latency['onnxruntime']}")
    return table


def contract_table(contract: Contract, golden_samples: int | None = None) -> Table:
    """What goes in and comes out."""
    table = Table("", "name", "shape", "dtype", "what")
    for role, specs in (("input", contract.inputs), ("output", contract.outputs)):
        for spec in specs:
            what = "; ".join(text for text in (spec.unit, spec.description, _columns(spec)) if text)
            table.add_row(*map(escape, (role, spec.name, shape_text(spec.shape), spec.dtype, what)))
    for step in contract.steps:
        table.add_row("step", escape(step.name), "", "", f"version {step.version}")
    labels = ", ".join(contract.labels[:MOST_LABELS])
    more = f", … {len(contract.labels) - MOST_LABELS} more" if len(contract.labels) > MOST_LABELS else ""
    parts = [contract.task + (f": {labels}{more}" if labels else "")]
    parts += [] if golden_samples is None else [f"golden samples {golden_samples}"]
    table.caption = escape(" · ".join(parts))
    return table


def _columns(spec: TensorSpec) -> str:
    """What an input's values are called, and which texts they may be."""
    texts = {each.column: each for each in spec.categories}
    told = []
    for name in spec.columns[:MOST_COLUMNS]:
        known = texts[name].texts if name in texts else ()
        more = ("…",) if len(known) > MOST_LABELS or (known and texts[name].other) else ()
        told.append(f"{name} ({' | '.join((*known[:MOST_LABELS], *more))})" if known else name)
    return ", ".join(told) + (
        f", … {len(spec.columns) - MOST_COLUMNS} more" if len(spec.columns) > MOST_COLUMNS else ""
    )


def _name_of(source: str) -> str:
    """A name from a file's or a folder's."""
    stem = Path(source).name if Path(source).is_dir() else Path(source).stem
    return re.sub(r"[^a-z0-9.-]+", "-", stem.lower()).strip("-.")[:63]


def _labels(given: str) -> list[str]:
    if not Path(given).is_file():
        return [label.strip() for label in given.split(",")]
    return [line.strip() for line in Path(given).read_text(encoding="utf-8").splitlines() if line.strip()]


def _samples(data_file: Path | None, contract: Any, files: Mapping[str, bytes]) -> Any:
    """What is in the file; None where none was named."""
    if data_file is None:
        return None
    from edge_models.build.data import load_samples  # noqa: PLC0415

    return load_samples(data_file, contract, files)


def _split(samples: Any) -> tuple[Any, Any]:
    """Samples to calibrate on, and others to measure on."""
    if samples is None:
        return None, None
    if len(samples) < 2:
        raise ConfigError("--data: one sample: some to calibrate on and others to measure on are needed")
    calibration, others = samples.split(min(CALIBRATION, len(samples) // 2))
    return calibration, others


def _tried(choice: Any) -> Table:
    metrics = list(choice.variants[0].metrics)
    table = Table("variant", *(name.replace("_", " ") for name in metrics), "as float", "bytes", "time / float", "")
    for each in choice.variants:
        said = ["[bold]chosen[/]"] if each.name == choice.chosen else []
        said += [escape(f"refused: {each.refused}")] if each.refused else []
        size = f"{each.size_bytes:,}" if each.size_bytes else ""
        numbers = [f"{each.metrics[name]:.4f}" if name in each.metrics else "" for name in metrics]
        agreement = "" if each.agreement is None else f"{each.agreement:.4f}"
        ratio = "" if each.speed_ratio is None else f"{each.speed_ratio:.2f}"
        table.add_row(each.name, *numbers, agreement, size, ratio, ", though ".join(said))
    if len(choice.variants) == 1:
        table.caption = escape(f"nothing else was tried: {choice.why}")
    return table


def _say_built(built: Any, as_json: bool) -> None:
    if as_json:
        emit_json({"path": str(built.path), "digest": built.digest, "card": built.card})
        return
    data.print(comparison(built.card))
    data.print(f"{built.path}  {built.path.stat().st_size:,} bytes  {built.digest}")
