"""`edge-agent fleet facts`, and `fleet fact set|delete|ls`: what one site knows, and what all are told."""

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from edge_cli.hub_client import HubDirOption, HubOption, TokenOption, connect
from edge_cli.output import emit_json, show_table, talk
from edge_models.errors import ConfigError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Facts that all sites are told.")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Key = Annotated[str, typer.Argument(help="What the fact is called.", show_default=False)]

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def facts(
    site: Annotated[str, typer.Argument(help="The site's id.", show_default=False)],
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the facts that a site's own agents set, as far as the hub has heard of them.

    Example: edge-agent fleet facts plant-01 --hub-dir /var/lib/edge-hub
    """
    answer = connect(hub, token_file, hub_dir).request("GET", f"/api/v1/sites/{quote(site, safe='')}/facts")
    if as_json:
        emit_json(answer)
    elif answer["facts"]:
        show_table(_table(answer["facts"], "ORIGIN", "origin"))
    else:
        talk.print(f"site {site} has set no facts of its own", markup=False)


@app.command("ls")
def list_facts(
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the fleet's facts, and say how many sites have all of them.

    Example: edge-agent fleet fact ls --hub http://127.0.0.1:8600 --token-file operator.token
    """
    answer = connect(hub, token_file, hub_dir).request("GET", "/api/v1/facts")
    if as_json:
        emit_json(answer)
        return
    talk.print(f"version {answer['version']}, which {answer['sites_up_to_date']} of {answer['sites']} sites have")
    if answer["facts"]:
        show_table(_table(answer["facts"], "VERSION", "version"))


@app.command("set")
def set_fact(
    key: Key,
    value: Annotated[str, typer.Argument(help="JSON; what is no JSON is a text.", show_default=False)],
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="Forget it after so long, as in 90s, 30m, 24h or 7d.")
    ] = None,
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell a fact to all sites, at once or when they come back; their policies read it as facts.KEY.

    Example: edge-agent fleet fact set tariff '{"peak": true}' --expires 24h
    """
    asked: dict[str, Any] = {"value": _value(value)}
    if expires is not None:
        asked["expires_in_s"] = _seconds(expires)
    answer = connect(hub, token_file, hub_dir).request("PUT", f"/api/v1/facts/{quote(key, safe='')}", json=asked)
    if as_json:
        emit_json(answer)
    else:
        talk.print(f"{key} is set, version {answer['version']}", markup=False)


@app.command("delete")
def delete_fact(
    key: Key,
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a fact of the fleet away from all sites.

    Example: edge-agent fleet fact delete tariff
    """
    answer = connect(hub, token_file, hub_dir).request("DELETE", f"/api/v1/facts/{quote(key, safe='')}")
    if as_json:
        emit_json(answer)
    else:
        talk.print(f"{key} is deleted", markup=False)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None or int(found[1]) == 0:
        raise ConfigError(f"--expires {text!r}: write a time as in 90s, 30m, 24h or 7d")
    return float(int(found[1]) * _SECONDS[found[2]])


def _table(listed: list[dict[str, Any]], title: str, name: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("KEY", "VALUE", "EXPIRES", title):
        table.add_column(heading, overflow="fold")
    for fact in listed:
        until = fact["expires_at_us"]
        # A site may set a time that no calendar has.
        shown = "-" if until is None else "later" if until > 2**52 else _time(until)
        value = json.dumps(fact["value"], ensure_ascii=False)
        table.add_row(escape(fact["key"]), escape(value), shown, str(fact[name]))
    return table


def _time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
