"""`edge-agent fleet revoke`, `tokens` and `token`: who is let into the fleet, and who no more."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table

from edge_cli.hub_client import HubClient, HubDirOption, HubOption, HubRefusal, TokenOption, connect
from edge_cli.output import FOUND, RETRY, data, emit_json, show_table, talk
from edge_models.errors import ConfigError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Join tokens for groups of sites.")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def revoke(
    site: Annotated[str, typer.Argument(help="The site's id.", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; for the audit.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether to go on.")] = False,
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let nothing of a site in any more: its certificates, passwords and join token end, and its session does.

    A new kit (node provision --replace) lets it in again. Exits 3 where no such site is registered, 4 where the broker
    has not ended its session yet.

    Example: edge-agent fleet revoke plant-01 --reason stolen --yes --hub-dir /var/lib/edge-hub
    """
    client = connect(hub, token_file, hub_dir)
    if not yes:
        typer.confirm(f"Let nothing of site {site} in any more?", abort=True, err=True)
    answer = client.request("POST", f"/api/v1/sites/{quote(site, safe='')}/revoke", json={"reason": reason})
    if as_json:
        emit_json(answer)
    else:
        _say(f"{site} is revoked: {answer['certificates']} certificates count no more, and it has no password here")
    if not answer["ended"]:
        _say("the broker has not ended its session yet: the hub tries again by itself")
        raise typer.Exit(RETRY)


def list_tokens(
    hub: HubOption = None, token_file: TokenOption = None, hub_dir: HubDirOption = None, as_json: JsonOption = False
) -> None:
    """List the join tokens, without their secrets: the newest of each site and group.

    Example: edge-agent fleet tokens --hub-dir /var/lib/edge-hub
    """
    answer = connect(hub, token_file, hub_dir).request("GET", "/api/v1/join-tokens")
    if as_json:
        emit_json(answer)
        return
    if not answer["join_tokens"]:
        _say("there are no join tokens")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("ID", "STATE"):
        table.add_column(name, no_wrap=True)
    for name in ("USED", "OF"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("UNTIL", no_wrap=True)
    for each in answer["join_tokens"]:
        table.add_row(each["id"], each["state"], str(each["used"]), str(each["sites"]), _when(each["expires_us"]))
    show_table(table)


@app.command("make")
def make_token(
    group: Annotated[str, typer.Argument(help="The group's name; its sites get the label group.", show_default=False)],
    count: Annotated[int, typer.Option("--count", metavar="N", help="How many sites may join with it.", min=1)],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the token there, mode 0600, and not on stdout.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label of each site; repeat.")
    ] = None,
    days: Annotated[int, typer.Option("--days", metavar="N", help="How long it is good.", min=1, max=90)] = 7,
    replace: Annotated[
        bool, typer.Option("--replace", help="In place of one of the group that is still good.")
    ] = False,
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token with which so many sites of a group join; it is told this once. Each site chooses its own id.

    Example: edge-agent fleet token make north --count 40 --out north.token --hub-dir /var/lib/edge-hub
    """
    client = connect(hub, token_file, hub_dir)
    if out is not None and os.path.lexists(out):
        raise ConfigError(f"--out {out} is there already")
    asked = {"group": group, "count": count, "days": days, "labels": _labels(label or []), "replace": replace}
    answer = client.request("POST", "/api/v1/join-tokens", json=asked)
    if out is not None:
        try:
            with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(answer.pop("join_token") + "\n")
        except OSError as error:
            raise ConfigError(
                f"--out {out}: {error.strerror}: the token is lost, make another with --replace"
            ) from None
    if as_json:
        emit_json(answer)
    elif out is None:
        data.print(answer["join_token"], markup=False)
    _say(f"{count} sites of group {group} may join at {answer['enrol_url']} until {_when(answer['join_expires_us'])}")


@app.command("rm")
def void_token(
    token: Annotated[str, typer.Argument(metavar="ID", help="As `fleet tokens` lists it.", show_default=False)],
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a join token back: nobody joins with it any more, and who joined stays. Exits 1 where there is none.

    Example: edge-agent fleet token rm _group-north --hub-dir /var/lib/edge-hub
    """
    answer = _take_back(connect(hub, token_file, hub_dir), token)
    if as_json:
        emit_json(answer)
    else:
        _say(f"nobody joins with {token} any more")


def _take_back(client: HubClient, token: str) -> Any:
    """Exits 1 where there is no such token."""
    try:
        return client.request("DELETE", f"/api/v1/join-tokens/{quote(token, safe='')}")
    except HubRefusal as error:
        if error.status != 404:
            raise
        _say(str(error).removeprefix("the hub refused: "))
        raise typer.Exit(FOUND) from None


def _labels(given: list[str]) -> dict[str, str]:
    found = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not key or not equals:
            raise ConfigError(f"--label {each!r}: write KEY=VALUE, as in kind=shop")
        found[key] = value
    return found


def _when(at_us: int) -> str:
    left = (at_us - time.time_ns() // 1000) // 86_400_000_000
    return f"{datetime.fromtimestamp(at_us // 1_000_000, UTC):%Y-%m-%d %H:%M} UTC" + (
        f" ({left} d)" if left > 0 else ""
    )


def _say(line: str) -> None:
    talk.print(line, markup=False, soft_wrap=True)
