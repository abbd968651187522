"""`edge-agent node check`: is a kit whole, whose is it, may it still join, and would this machine carry it?"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edge_agent.config import load_site
from edge_cli.hub_client import HUB_VARIABLE, HubDirOption, HubOption, TokenOption, connect
from edge_cli.output import FOUND, data, emit_json
from edge_k3s.checking import Finding, Look, TokenState, check_kit
from edge_k3s.machine import read_machine
from edge_k3s.validating import validator
from edge_models.errors import ConfigError, RejectedError

app = typer.Typer(add_completion=False)
"""Holds the command for the group `edge-agent node`, which takes it over."""

Tokens = Callable[[], Mapping[str, TokenState]]
"""The hub's join tokens, asked of its API."""

_MARKS = {"good": "[green]✓[/]", "mind": "[yellow]![/]", "wrong": "[bold red]✗[/]"}


def look_at(
    kit: Path,
    root: Path | None,
    here: bool,
    prefix: Path = Path("/"),
    ask_hub: bool = False,
    option: str = "--root",
    ask_tokens: Tokens | None = None,
) -> list[Finding]:
    """All that was found about this kit; `root`: a file with the operator's root, given as `option`; `prefix`: of the
    machine's files; `ask_tokens`: as in `Look`.

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
        ask_tokens=ask_tokens,
        machine=read_machine(prefix),
        here=here,
    )
    return check_kit(kit, look)


def _ask_hub(file: Path, pin: str) -> None:
    from edge_agent.enrol.client import EstClient  # noqa: PLC0415 - only who asks needs TLS

    hub = load_site(file).config.hub
    EstClient(hub.enrol if hub is not None and hub.enrol is not None else "").root(pin)


def tokens_at(hub: str | None, token_file: Path | None, hub_dir: Path | None) -> Tokens | None:
    """How to ask this hub's API for its join tokens; None where nothing says where that is."""
    if hub is None and hub_dir is None and not os.environ.get(HUB_VARIABLE):
        return None

    def ask() -> dict[str, TokenState]:
        listed = connect(hub, token_file, hub_dir).request("GET", "/api/v1/join-tokens")
        try:
            return {
                str(each["id"]): TokenState(str(each["state"]), int(each["expires_us"]) // 1_000_000)
                for each in listed["join_tokens"]
            }
        except (KeyError, TypeError, ValueError):
            raise RejectedError("the hub's list of join tokens is none: is it really a hub?") from None

    return ask


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
    ask_hub: Annotated[
        bool, typer.Option("--ask-hub", help="Also ask whether the hub is the one it names, and still lets it join.")
    ] = False,
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Check a kit: signature, every file, versions, join token, manifests, and with --here this machine.

    Whether the join token is spent or void, the hub's API says: --ask-hub with --hub-dir, or with --hub and
    --token-file. Exits 1 if anything is wrong.

    Example: edge-agent node check kits/plant-07 --root /secure/trust/metadata/1.root.json
    """
    if not ask_hub and (hub or token_file or hub_dir):
        raise ConfigError("--hub, --token-file and --hub-dir say which hub is asked: add --ask-hub")
    ask_tokens = tokens_at(hub, token_file, hub_dir) if ask_hub else None
    findings = look_at(kit, root, here, ask_hub=ask_hub, ask_tokens=ask_tokens)
    wrong = any(finding.grade == "wrong" for finding in findings)
    if as_json:
        emit_json({"ok": not wrong, "findings": [asdict(finding) for finding in findings]})
    else:
        show(findings)
    if wrong:
        raise typer.Exit(FOUND)
