"""`edge-agent doctor`: what is wrong with a site."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edge_agent.config import load_site
from edge_cli.output import FOUND, data, emit_json

app = typer.Typer(add_completion=False)

_MARKS = {"ok": "[green]✓[/]", "warn": "[yellow]![/]", "fail": "[bold red]✗[/]"}


@app.command()
def doctor(
    file: Annotated[Path, typer.Argument(help="The site file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is wrong with a site and what to do; exits 1 when something is. Changes nothing.

    Example: edge-agent doctor site.yaml
    """
    from edge_agent.doctor import examine  # noqa: PLC0415 - a bad site file is told before models are loaded

    findings = examine(load_site(file))
    if as_json:
        emit_json({"ok": all(f.level != "fail" for f in findings), "findings": [asdict(f) for f in findings]})
    else:
        for finding in findings:
            data.print(f"{_MARKS[finding.level]} [bold]{finding.about}[/]  {escape(finding.what)}")
            if finding.remedy:
                data.print(f"    → {escape(finding.remedy)}")
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(FOUND)
