"""`edge-agent fleet verify`: whether the hub still holds what a site wrote."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from edge_cli.hub_client import HubClient, HubDirOption, HubOption, TokenOption, connect
from edge_cli.output import FOUND, data, emit_json, talk

VERIFY_S = 3600.0
"""How long to wait for the hub: it reads every record of the site before it answers."""


def verify_command(
    site: Annotated[str, typer.Argument(help="The site's id.", show_default=False)],
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Check that what the hub holds of a site is what the site wrote and signed; exits 1 when not, and says where.

    Example: edge-agent fleet verify plant-01 --hub-dir /var/lib/edge-hub
    """
    answer = ask_to_verify(connect(hub, token_file, hub_dir), site)
    if as_json:
        emit_json(answer)
    else:
        talk.print(counted(answer), markup=False, soft_wrap=True)
        for each in answer["findings"]:
            data.print(f"{place(each)}  {each['what']}", markup=False)
        if not answer["findings"]:
            data.print("every chain holds")
    if answer["findings"]:
        raise typer.Exit(FOUND)


def ask_to_verify(client: HubClient, site: str) -> dict[str, Any]:
    """Have the hub verify what it holds of the site; its report."""
    answer: dict[str, Any] = client.request("GET", f"/api/v1/sites/{quote(site, safe='')}/verify", timeout_s=VERIFY_S)
    return answer


def counted(answer: dict[str, Any]) -> str:
    """What the hub checked, in a line."""
    rows, lost = (sum(each[name] for each in answer["streams"]) for name in ("rows", "lost"))
    return (
        f"hub: {rows} records in {len(answer['streams'])} streams checked, {lost} in gaps,"
        f" {answer['checkpoints']} checkpoints"
    )


def place(finding: dict[str, Any]) -> str:
    """Where it is: a record's id, or the file where it is no record."""
    return f"{finding['epoch']}:{finding['lane']}:{finding['seq']}" if finding["epoch"] else "-"
