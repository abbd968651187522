"""Recorded files, read one message at a time: JSON lines, CSV with a header, or a bundle's golden inputs."""

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.records import Json
from edge_agent.sources.decode import MAX_MESSAGE_BYTES, excerpt, read_object
from edge_models.bundle import read_bundle
from edge_models.errors import ConfigError, RejectedError


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A place in a recording that holds no message, and why."""

    reason: str
    excerpt: str


Recorded = dict[str, Json] | Unreadable


def read_recording(path: Path) -> Iterator[Recorded]:
    """The messages of a file from its beginning; the file is open until the iterator ends or is closed.

    A ``.csv`` cell that is a finite number becomes one, an empty cell null. A ``.bundle`` gives each golden sample
    as ``{input name: numbers, "truth": label}``. Raises `ConfigError` where the file can't be read at all.
    """
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise ConfigError(f"recording {path}: its name ends in none of {', '.join(_READERS)}")
    try:
        yield from reader(path)
    except OSError as error:
        raise ConfigError(f"recording {path}: {error.strerror or error}") from None
    except RejectedError as error:
        raise ConfigError(str(error)) from None


def _json_lines(path: Path) -> Iterator[Recorded]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_MESSAGE_BYTES + 1):
            number += 1
            whole = line.endswith(b"\n") or len(line) <= MAX_MESSAGE_BYTES
            if not whole:
                yield Unreadable(f"line {number}: more than {MAX_MESSAGE_BYTES} bytes", excerpt(line))
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_MESSAGE_BYTES)
            elif line.strip():
                try:
                    yield read_object(line)
                except RejectedError as error:
                    yield Unreadable(f"line {number}: {error}", excerpt(line))


def _csv_rows(path: Path) -> Iterator[Recorded]:
    # A byte that is no UTF-8 shows as a replacement character rather than ending the recording.
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if not header or "" in header or len(set(header)) < len(header):
            raise ConfigError(f"recording {path}: the first line must name every column, each by a name of its own")
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield Unreadable(f"line {rows.line_num}: {error}", "")
                continue
            if len(row) == len(header):
                yield {name: _cell(cell) for name, cell in zip(header, row, strict=True)}
            elif row:
                reason = f"line {rows.line_num}: {len(row)} cells, the header has {len(header)}"
                yield Unreadable(reason, excerpt(",".join(row).encode()))


def _cell(text: str) -> Json:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _golden(path: Path) -> Iterator[Recorded]:
    golden = read_bundle(path).golden
    for index, truth in enumerate(golden.truth):
        yield {**{name: array[index].tolist() for name, array in golden.inputs.items()}, "truth": truth}


_READERS: dict[str, Callable[[Path], Iterator[Recorded]]] = {
    ".jsonl": _json_lines,
    ".csv": _csv_rows,
    ".bundle": _golden,
}

RECORDINGS = tuple(_READERS)
"""How the name of a recording ends."""
