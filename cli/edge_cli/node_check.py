"""`edge-agent node check`: is a kit whole, whose is it, and would this machine carry it?"""

import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edge_agent.config import load_site
from edge_cli.output import FOUND, data, emit_json
from edge_k3s.checking import Finding, Look, check_kit
from edge_k3s.machine import read_machine
from edge_k3s.validating import validator
from edge_models.errors import ConfigError

app = typer.Typer(add_completion=False)
"""Holds the command for the group `edge-agent node`, which takes it over."""

_MARKS = {"good": "[green]✓[/]", "mind": "[yellow]![/]", "wrong": "[bold red]✗[/]"}


def look_at(
    kit: Path,
    root: Path | None,
    here: bool,
    prefix: Path = Path("/"),
    ask_hub: bool = False,
    option: str = "--root",
) -> list[Finding]:
    """All that was found about this kit; `root`: a file with the operator's root, given as `option`; `prefix`: of the
    machine's files.

    Raises `ConfigError` where there is no kit, or no such root.
    """
    trusted = None
    if root is not None:
        try:
            trusted = root.read_bytes()
        except OSError as error:
            raise ConfigError(f"{option} {root}: {error.strerror}") from None
    look = Look(
        now_s=int(time.time()),
        version=version("edge-agent-kit"),
        root=trusted,
        validate=validator(),
        read_site=lambda file: load_site(file).config.site,
        ask_hub=_ask_hub if ask_hub else None,
        machine=read_machine(prefix),
        here=here,
    )
    return check_kit(kit, look)


def _ask_hub(file: Path, pin: str) -> None:
    from edge_agent.enrol.client import EstClient  # noqa: PLC0415 - only who asks needs TLS

    hub = load_site(file).config.hub
    EstClient(hub.enrol if hub is not None and hub.enrol is not None else "").root(pin)


def show(findings: list[Finding]) -> None:
    """One line each, and what to do."""
    for finding in findings:
        data.print(f"{_MARKS[finding.grade]} {escape(finding.what)}")
        if finding.do:
            data.print(f"    → {escape(finding.do)}")


@app.command()
def check(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="The kit's folder.", show_default=False)],
    root: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The operator's root.json, had by another way than the kit.")
    ] = None,
    here: Annotated[bool, typer.Option("--here", help="This machine is to be the node: it has to fit.")] = False,
    ask_hub: Annotated[bool, typer.Option("--ask-hub", help="Also ask whether the hub is the one it names.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Check a kit: signature, every file, versions, join token, manifests, and this machine. Exits 1 if one is wrong.

    Example: edge-agent node check kits/plant-07 --root /secure/trust/metadata/1.root.json
    """
    findings = look_at(kit, root, here, ask_hub=ask_hub)
    wrong = any(finding.grade == "wrong" for finding in findings)
    if as_json:
        emit_json({"ok": not wrong, "findings": [asdict(finding) for finding in findings]})
    else:
        show(findings)
    if wrong:
        raise typer.Exit(FOUND)
