"""The table of the bundles that ship, made from their cards: ``python -m edge_models.build.table [README]``.

Prints it, or rewrites the part of a Markdown file between its two marks.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_models.errors import ConfigError
from edge_models.shipped import shipped_bundles

BEGIN, END = "<!-- begin: table made from the cards -->", "<!-- end: table made from the cards -->"

HEADER = ("bundle", "what it learned from", "accuracy float → int8", "macro-F1 float → int8", "graph KB", "int8 time")


def row(card: Mapping[str, Any]) -> tuple[str, ...]:
    """A card as a row under `HEADER`. The last column is int8's time as a share of float's."""
    metrics, size = card["metrics"], card["size"]
    return (
        f"{card['name']} {card['version']}",
        f"{card['data']['counts']['train']['samples']:,} of {card['data']['name']}",
        f"{metrics['float']['accuracy']:.4f} → {metrics['int8']['accuracy']:.4f}",
        f"{metrics['float']['macro_f1']:.4f} → {metrics['int8']['macro_f1']:.4f}",
        f"{size['float_bytes'] / 1000:.1f} → {size['int8_bytes'] / 1000:.1f}",
        f"{card['latency']['ratio']:.2f} ×",
    )


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


def main(arguments: Sequence[str]) -> None:
    """Print the table, or write it into the file that is named."""
    table = markdown([bundle.card for bundle in shipped_bundles()])
    if not arguments:
        sys.stdout.write(table + "\n")
        return
    path = Path(arguments[0])
    path.write_text(rewritten(path.read_text(encoding="utf-8"), table), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
