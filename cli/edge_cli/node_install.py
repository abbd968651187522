"""`edge-agent node install`: check a kit closely, then do what its install.sh does."""

import os
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from edge_cli.node_check import look_at
from edge_cli.output import emit_json
from edge_k3s.settings import INSTALLER
from edge_models.errors import ConfigError, RejectedError

app = typer.Typer(add_completion=False)
"""Holds the command for the group `edge-agent node`, which takes it over."""


@app.command()
def install(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="The kit's folder.", show_default=False)],
    root_file: Annotated[
        Path | None, typer.Option("--trust-root", metavar="FILE", help="The operator's root.json, not from the kit.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    add_route: Annotated[bool, typer.Option("--add-route", help="Make the default route that k3s wants.")] = False,
    settings: Annotated[bool, typer.Option("--settings", help="Also to a k3s that was here before.")] = False,
    ignore_size: Annotated[bool, typer.Option("--ignore-size", help="Also on a machine that is too small.")] = False,
    wait_s: Annotated[int, typer.Option("--wait", min=1, metavar="SECONDS", help="For k3s to start.")] = 300,
    root: Annotated[
        str | None, typer.Option(metavar="DIR", help="Lay the files below DIR, for an image; start nothing.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Make this machine a node of the kit's site, as its install.sh does, once the kit is found whole and genuine.

    Example: edge-agent node install /media/stick/plant-07
    """
    prefix = _below(root) if root is not None else Path("/")
    findings = look_at(kit, root_file, here=False, prefix=prefix, option="--trust-root")
    if wrong := next((each for each in findings if each.grade == "wrong"), None):
        raise RejectedError(f"kit {kit}: {wrong.what}{f': {wrong.do}' if wrong.do else ''}")
    words = ["sh", str(kit.resolve() / INSTALLER), "--wait", str(wait_s)]
    given = {"--dry-run": dry_run, "--add-route": add_route, "--settings": settings, "--ignore-size": ignore_size}
    words += [word for word, wanted in given.items() if wanted]
    words += ["--root", str(prefix)] if root is not None else []
    done = subprocess.run(
        words,
        env={**os.environ, "EDGE_KIT_CHECKED": "yes"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if as_json else None,
        text=True,
        check=False,
    )
    if as_json:
        emit_json({"kit": str(kit), "done": done.stdout.splitlines(), "code": done.returncode})
    if done.returncode:
        raise typer.Exit(done.returncode)  # it has said why, and its codes are ours


def _below(root: str) -> Path:
    """The folder, absolute. Raises `ConfigError` where it is none, or is this machine's own root.

    A str: as a `Path`, nothing would be the current folder.
    """
    folder = Path(root).resolve()
    if not root or not folder.is_dir() or folder.samefile("/"):
        raise ConfigError(f"--root {root!r}: wants a folder that is there and is not /")
    return folder
