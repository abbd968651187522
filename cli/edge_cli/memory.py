"""`edge-agent memory`: look into a site's journal. Works on a running site, a stopped one, or a copied file."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edge_agent.config import load_site
from edge_agent.memory.explain import explain
from edge_agent.memory.queries import Record, newest, parse_id
from edge_agent.memory.schema import reading
from edge_cli import memory_erase, memory_notes, memory_verify
from edge_cli.explained import explanation_tree, in_short, to_json, utc
from edge_cli.output import data, emit_json
from edge_models.errors import ConfigError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A site's journal.")
app.command("erase")(memory_erase.erase)
app.command("verify")(memory_verify.verify_command)
app.command("add")(memory_notes.add)
app.command("search")(memory_notes.search)
app.command("forget")(memory_notes.forget)

Where = Annotated[
    Path, typer.Option("--memory", "-m", help="A memory.db, or the site file it belongs to.", show_default=True)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HERE = Path("site.yaml")


@app.command("tail")
def tail_command(
    memory: Where = HERE,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000)] = 20,
    kind: Annotated[str | None, typer.Option(help="Only this kind, as in decision.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    as_json: Json = False,
) -> None:
    """Show the newest records.

    Example: edge-agent memory tail -m site.yaml --kind decision -n 5
    """
    path = _database(memory)
    with _looked_into(path) as connection:
        found = newest(connection, lines, kind, agent)
        _print_records([record for _, record in found], as_json)
        last = found[-1][0] if found else 0
        while follow:
            time.sleep(0.5)
            found = newest(connection, 1000, kind, agent, after=max(last, 1))
            _print_records([record for _, record in found], as_json)
            last = found[-1][0] if found else last


@app.command("explain")
def explain_command(
    record: Annotated[str, typer.Argument(help="A record id, as EPOCH:LANE:SEQ.")],
    memory: Where = HERE,
    as_json: Json = False,
) -> None:
    """Say why something was done: observation, prediction, decision, action.

    Example: edge-agent memory explain 66b8850bbe06a2c6:decision:42 -m site.yaml
    """
    parse_id(record)
    with _looked_into(_database(memory)) as connection:
        found = explain(connection, record)
    if as_json:
        emit_json({"chain": [to_json(each) for each in found.chain], "missing": list(found.missing)})
    else:
        data.print(explanation_tree(found, record))


def _database(path: Path) -> Path:
    """The database a person means: a memory.db, or the one of a site file."""
    if path.suffix in (".yaml", ".yml"):
        return load_site(path).data / "memory.db"
    return path


@contextlib.contextmanager
def _looked_into(path: Path) -> Iterator[sqlite3.Connection]:
    """A reader of what may be no memory at all. Raises `ConfigError`."""
    try:
        with reading(path) as connection:
            yield connection
    except sqlite3.Error as error:
        what = f"{path}: can't be read as a site's memory: {error}"
        raise ConfigError(f"{what} (`memory verify` says what is damaged)") from None


def _print_records(records: list[Record], as_json: bool) -> None:
    if as_json:
        for record in records:
            emit_json(to_json(record))
        return
    for record in records:
        what = escape(" · ".join(filter(None, in_short(record))))
        when, who = f"[dim]{utc(record.at)}[/]", f"[cyan]{record.kind:<11}[/] [bold]{record.agent}[/]"
        data.print(f"{when}  {who}  {what}  [dim]{record.id}[/]")
