"""The table of the reference models, made from their cards: ``python -m edge_models.build.table [README]``.

Prints it, or rewrites the part of a Markdown file between its two marks. Bundles that are too large to ship have their
card beside those that do, as `edge-agent model inspect --json` prints it.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_models.errors import ConfigError
from edge_models.shipped import DATA, shipped_bundles

BEGIN, END = "<!-- begin: table made from the cards -->", "<!-- end: table made from the cards -->"

HEADER = ("bundle", "task", "data", "quality, float → as it ships", "graph, KB", "time")

MOST_METRICS = 2
"""Of a model, in the table."""


def row(card: Mapping[str, Any]) -> tuple[str, ...]:
    """A card as a row under `HEADER`. The last column is what ships, as a share of float's time."""
    size, ratio = card["size"], card["latency"].get("ratio")
    kilobytes = [f"{size[f'{name}_bytes'] / 1000:,.1f}" for name in precisions(card)]
    return (
        f"{card['name']} {card['version']}",
        card["task"],
        _data(card["data"]),
        _quality(card["metrics"], precisions(card)),
        " → ".join(kilobytes),
        "float ships" if ratio is None else f"{ratio:.2f} ×",
    )


def precisions(card: Mapping[str, Any]) -> list[str]:
    """Float, and what ships where that is another."""
    names = [key.removesuffix("_bytes") for key in card["size"]]
    return sorted(names, key=lambda name: name != "float")


def _data(data: Mapping[str, Any]) -> str:
    train = data.get("counts", {}).get("train")
    return f"{train['samples']:,} of {data['name']}" if train else str(data.get("name", ""))


def _quality(metrics: Mapping[str, Any], precisions: Sequence[str]) -> str:
    names = list(metrics.get("float", {}))[:MOST_METRICS]
    said = [f"{name} {' → '.join(f'{metrics[p][name]:.4f}' for p in precisions)}" for name in names]
    return "; ".join(said).replace("_", " ")


def markdown(cards: Sequence[Mapping[str, Any]]) -> str:
    """The table, with a last line that says where the times were taken."""
    lines = [HEADER, ("---",) * len(HEADER), *(row(card) for card in cards)]
    machines = sorted({f"{card['latency']['cpu']}, ONNX Runtime {card['latency']['onnxruntime']}" for card in cards})
    measured = f"Held-out samples. Times: one sample, one thread, on {' and '.join(machines)}."
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", measured])


def rewritten(text: str, table: str) -> str:
    """`text` with the table between its marks. Raises `ConfigError` when it has no marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"the file has no {BEGIN!r} and {END!r}")
    return f"{before}{begin}\n{table}\n{end}{after}"


def cards() -> list[Mapping[str, Any]]:
    """Of every reference model, by name and version."""
    apart = [json.loads(path.read_bytes())["card"] for path in DATA.glob("*.json")]
    return sorted([*apart, *(bundle.card for bundle in shipped_bundles())], key=lambda c: (c["name"], c["version"]))


def main(arguments: Sequence[str]) -> None:
    """Print the table, or write it into the file that is named."""
    table = markdown(cards())
    if not arguments:
        sys.stdout.write(table + "\n")
        return
    path = Path(arguments[0])
    path.write_text(rewritten(path.read_text(encoding="utf-8"), table), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
