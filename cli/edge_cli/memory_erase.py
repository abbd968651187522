"""`edge-agent memory erase`: what a stopped site holds of one subject."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edge_agent.config import load_site
from edge_agent.memory.erase import erase_subject
from edge_cli.output import FOUND, emit_json, talk

_UNBOUNDED_MB = 1_000_000


def erase(
    subject: Annotated[str, typer.Argument(help="The subject, exactly as its records name it.", show_default=False)],
    memory: Annotated[
        Path, typer.Option("--memory", "-m", help="The site file, or its memory.db.", show_default=True)
    ] = Path("site.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Erase what a stopped site holds of one subject, for good; exits 1 where there is nothing.

    Example: edge-agent memory erase press-7 -m site.yaml
    """
    path, budget_mb = memory, _UNBOUNDED_MB
    if memory.suffix in (".yaml", ".yml"):
        site = load_site(memory)
        path, budget_mb = site.data / "memory.db", site.config.disk.journal_mb
    erased = erase_subject(path, budget_mb, subject)
    if as_json:
        emit_json(asdict(erased))
    elif erased.records or erased.facts or erased.intents:
        _say(
            f"erased at the site: {erased.records} records, {erased.facts} facts, {erased.intents} open acts; "
            "gaps stand in their place"
        )
    else:
        _say("nothing found: no record is of that subject")
    if erased.mentions:
        _say(f"{erased.mentions} records of other subjects name it in their text, and stay")
    if not erased.overwritten:
        _say("the file's old pages may hold it still: end what reads the memory, make room on the disk, erase again")
    if not (erased.records or erased.facts or erased.intents):
        raise typer.Exit(FOUND)


def _say(line: str) -> None:
    talk.print(line, markup=False, soft_wrap=True)
