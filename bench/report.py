"""How every benchmark says what it found: lines with a ratio and the target, and the machine they are true for."""

import os
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table. `figures` go under the table's own columns; `ratio` is against the table's baseline."""

    what: str
    figures: tuple[str, ...]
    ratio: str = ""
    target: str = ""


def show(title: str, columns: Sequence[str], lines: Sequence[Line]) -> None:
    """Print the table under the machine's description."""
    table = Table("what", *columns, "ratio", "target", title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for line in lines:
        table.add_row(line.what, *line.figures, line.ratio, line.target)
    console = Console(width=120)
    console.print(machine(), style="dim", highlight=False, soft_wrap=True)
    console.print(table)


def machine() -> str:
    """The processor, what runs on it, and how busy it was: a number without them says nothing."""
    load_1m, load_5m, _ = os.getloadavg()
    return (
        f"{_cpu()}, {os.cpu_count()} cores, load {load_1m:.1f} {load_5m:.1f} · Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, onnxruntime {version('onnxruntime')}, numpy {version('numpy')}"
    )


def _cpu() -> str:
    """The name that the processor gives itself, with family and model where that name says little."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name", platform.machine())
    return f"{name} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"
