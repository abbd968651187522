"""`edge-agent infer`: a bundle and an input, no daemon and no network."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from edge_agent.inference.files import from_file
from edge_agent.inference.model import Model
from edge_cli.output import data, emit_json
from edge_models.bundle import read_bundle

app = typer.Typer(add_completion=False)


@app.command()
def infer(
    bundle: Annotated[Path, typer.Argument(help="A .bundle file; every byte of it is verified.")],
    source: Annotated[
        Path,
        typer.Argument(metavar="INPUT", help="A .npy, .csv or .json file, or a picture if the bundle takes those."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a bundle's model makes of an input, offline.

    Example: edge-agent infer pump.bundle window.csv
    """
    model = Model(read_bundle(bundle))
    inputs = from_file(model.contract, source)
    start = time.perf_counter()
    predictions = model.predict(inputs)
    latency_ms = (time.perf_counter() - start) * 1000
    if as_json:
        emit_json(
            {
                "bundle": f"{model.contract.name} {model.contract.version}",
                "digest": model.digest,
                "predictions": [{"label": p.label, "score": p.score, "scores": dict(p.scores)} for p in predictions],
                "latency_ms": round(latency_ms, 3),
            }
        )
        return
    table = Table("sample", "label", "score", caption=f"{latency_ms:.1f} ms", caption_justify="left")
    table.title = f"{model.contract.name} {model.contract.version}"
    for number, prediction in enumerate(predictions, start=1):
        table.add_row(str(number), prediction.label, f"{prediction.score:.4f}")
    data.print(table)
