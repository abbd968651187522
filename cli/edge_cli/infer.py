"""`edge-agent infer`: a bundle and an input, no daemon and no network."""

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from edge_agent.inference.files import from_file
from edge_agent.inference.model import Model, Tensors
from edge_agent.records import Prediction
from edge_cli.output import data, emit_json
from edge_models.bundle import read_bundle

app = typer.Typer(add_completion=False)

MOST_VALUES = 8
"""Of a tensor, shown in a terminal."""


@app.command()
def infer(
    bundle: Annotated[Path, typer.Argument(help="A .bundle file; every byte of it is verified.")],
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A .npy, .npz, .csv or .json file; a picture or a .txt file if the bundle takes those.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a bundle's model makes of an input, offline.

    Example: edge-agent infer pump.bundle window.csv
    """
    model = Model(read_bundle(bundle))
    inputs = from_file(model.contract, source, model.before)
    start = time.perf_counter()
    predictions = model.predict(inputs) if model.predicts else []
    outputs = {} if model.predicts else model.run(inputs)
    latency_ms = (time.perf_counter() - start) * 1000
    if as_json:
        told: dict[str, Any] = {
            "bundle": f"{model.contract.name} {model.contract.version}",
            "digest": model.digest,
            "latency_ms": round(latency_ms, 3),
        }
        if model.predicts:
            told["predictions"] = [_as_json(each) for each in predictions]
        else:
            told["outputs"] = {name: array.tolist() for name, array in outputs.items()}
        emit_json(told)
        return
    table = _predicted(predictions) if model.predicts else _tensors(outputs)
    table.title = f"{model.contract.name} {model.contract.version}"
    table.caption, table.caption_justify = f"{latency_ms:.1f} ms", "left"
    data.print(table)


def _as_json(prediction: Prediction) -> dict[str, Any]:
    told = {"label": prediction.label, "score": prediction.score, "scores": dict(prediction.scores)}
    return told | ({"values": dict(prediction.values)} if prediction.values else {})


def _predicted(predictions: list[Prediction]) -> Table:
    fields = sorted({name for each in predictions for name in each.values})
    table = Table("sample", "label", "score", *map(escape, fields))
    for number, each in enumerate(predictions, start=1):
        values = [escape(each.values.get(name, "")) for name in fields]
        table.add_row(str(number), escape(each.label), f"{each.score:.4f}", *values)
    return table


def _tensors(outputs: Tensors) -> Table:
    table = Table("output", "shape", "values")
    for name, array in outputs.items():
        flat = np.ravel(array)
        shown = ", ".join(f"{value:.4g}" for value in flat[:MOST_VALUES].tolist())
        more = f", … {flat.size - MOST_VALUES:,} more" if flat.size > MOST_VALUES else ""
        table.add_row(escape(name), str(tuple(array.shape)), shown + more)
    return table
