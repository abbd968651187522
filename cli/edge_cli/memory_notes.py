"""`edge-agent memory add|search|forget`: a site's notes, found again by what they mean. No network, no daemon."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from edge_agent.config import load_site
from edge_agent.memory.note_model import keep_note_model, note_model
from edge_agent.memory.notes import FILE, Embedder, Note, Notes
from edge_cli.explained import utc
from edge_cli.output import emit_json, show_table, talk
from edge_models.errors import ConfigError

Where = Annotated[
    Path, typer.Option("--memory", "-m", help="The site file, or a memory.db beside which the notes are.")
]
BundleFile = Annotated[
    Path | None,
    typer.Option("--model", metavar="BUNDLE", help="What makes vectors of texts, as minilm does; kept from then on."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HERE = Path("site.yaml")


def add(
    text: Annotated[str, typer.Argument(help="What is to be found again; 1 to 4000 characters.", show_default=False)],
    memory: Where = HERE,
    model: BundleFile = None,
    as_json: Json = False,
) -> None:
    """Leave a note at this site.

    Example: edge-agent memory add "Pump 7 drips in the cold: tighten the left gland." --model minilm-1.bundle
    """
    data = _data(memory)
    embedder = _embedder(data, model)
    with _notes(data) as notes:
        note = notes.add(text, time.time_ns() // 1000, embedder)
    if as_json:
        emit_json(_told(note))
    else:
        talk.print(f"note {note.id}", markup=False)


def search(
    text: Annotated[str | None, typer.Argument(help="In words of your own; left out: the newest.")] = None,
    memory: Where = HERE,
    most: Annotated[int, typer.Option("--most", "-k", min=1, max=100, help="Notes to show.")] = 5,
    model: BundleFile = None,
    as_json: Json = False,
) -> None:
    """Find the notes that are nearest in meaning.

    Example: edge-agent memory search "the pump is losing oil" -k 3
    """
    data = _data(memory)
    embedder = None if text is None else _embedder(data, model)
    with _notes(data, there=True) as notes:
        found = notes.newest(most) if text is None or embedder is None else notes.search(text, most, embedder)
    if as_json:
        emit_json({"notes": [_told(note) for note in found]})
    else:
        show_table(_table(found))


def forget(
    note: Annotated[int, typer.Argument(help="Its number, as `search` shows it.", show_default=False)],
    memory: Where = HERE,
    as_json: Json = False,
) -> None:
    """Remove a note for good.

    Example: edge-agent memory forget 3
    """
    with _notes(_data(memory), there=True) as notes:
        notes.forget(note)
    if as_json:
        emit_json({"forgotten": note})
    else:
        talk.print(f"note {note} is gone", markup=False)


def _told(note: Note) -> dict[str, Any]:
    told = {"id": note.id, "at_us": note.at_us, "text": note.text}
    return told if note.score is None else told | {"score": note.score}


def _table(found: list[Note]) -> Table:
    table = Table("note", "left", "likeness", "text")
    for note in found:
        likeness = "" if note.score is None else f"{note.score:.2f}"
        table.add_row(str(note.id), utc(note.at_us), likeness, escape(note.text))
    return table


def _data(memory: Path) -> Path:
    """The site's data folder."""
    return load_site(memory).data if memory.suffix in (".yaml", ".yml") else memory.parent


def _embedder(data: Path, bundle: Path | None) -> Embedder:
    return note_model(data) if bundle is None else keep_note_model(data, bundle)


@contextlib.contextmanager
def _notes(data: Path, there: bool = False) -> Iterator[Notes]:
    """The site's notes; with `there` only where somebody left one: a file that was only looked for is not made."""
    if there and not (data / FILE).exists():
        raise ConfigError(f"{data}: nobody has left a note here yet: edge-agent memory add TEXT")
    notes = Notes(data / FILE)
    try:
        yield notes
    finally:
        notes.close()
