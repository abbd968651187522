"""`edge-agent fleet keep` and `fleet erase`: how long the hub keeps records, and erasing what it holds of a subject."""

from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer
from rich.table import Table

from edge_cli.hub_client import HubDirOption, HubOption, HubRefusal, TokenOption, connect
from edge_cli.output import FOUND, emit_json, show_table, talk
from edge_models.errors import ConfigError, RejectedError
from edge_sync.keep import ALL, KeepRule

app = typer.Typer(add_completion=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
KindOption = Annotated[str, typer.Option("--kind", metavar="KIND", help="As in observation; * for all.")]
AgentOption = Annotated[str, typer.Option("--agent", metavar="AGENT", help="An agent's name; * for all.")]


@app.callback(invoke_without_command=True)
def set_rule(
    context: typer.Context,
    days: Annotated[int | None, typer.Option("--days", metavar="N", help="How many days, by the hub's clock.")] = None,
    kind: KindOption = ALL,
    agent: AgentOption = ALL,
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let records go from the hub when it has had them so many days; what no rule matches is kept for ever.

    Example: edge-agent fleet keep --kind observation --days 90 --hub-dir /var/lib/edge-hub
    """
    if context.invoked_subcommand is not None:
        return
    if days is None:
        raise ConfigError("how long? Give --days N (or say `fleet keep ls`, `fleet keep rm`)")
    try:
        rule = KeepRule(kind, agent, days)
    except RejectedError as error:
        raise ConfigError(str(error)) from None
    asked = {"kind": rule.kind, "agent": rule.agent, "days": rule.days}
    answer = connect(hub, token_file, hub_dir).request("PUT", "/api/v1/keep", json=asked)
    if as_json:
        emit_json(answer)
    else:
        talk.print(f"{_what(kind, agent)} go when the hub has had them {days} days; a gap says so", markup=False)


@app.command("ls")
def list_rules(
    hub: HubOption = None, token_file: TokenOption = None, hub_dir: HubDirOption = None, as_json: JsonOption = False
) -> None:
    """List the rules.

    Example: edge-agent fleet keep ls --hub-dir /var/lib/edge-hub
    """
    answer = connect(hub, token_file, hub_dir).request("GET", "/api/v1/keep")
    if as_json:
        emit_json(answer)
        return
    if not answer["keep"]:
        talk.print("no rule: every record is kept for ever")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("KIND", "AGENT"):
        table.add_column(name, no_wrap=True)
    table.add_column("DAYS", justify="right", no_wrap=True)
    for rule in answer["keep"]:
        table.add_row(rule["kind"], rule["agent"], str(rule["days"]))
    show_table(table)


@app.command("rm")
def remove_rule(
    kind: KindOption = ALL,
    agent: AgentOption = ALL,
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a rule away; exits 1 where there is none.

    Example: edge-agent fleet keep rm --kind observation --hub-dir /var/lib/edge-hub
    """
    path = f"/api/v1/keep?{urlencode({'kind': kind, 'agent': agent})}"
    answer = _ask(connect(hub, token_file, hub_dir), path)
    if as_json:
        emit_json(answer)
    else:
        talk.print(f"{_what(kind, agent)} are no longer let go by this rule", markup=False)


def erase(
    site: Annotated[str, typer.Argument(help="The site's id.", show_default=False)],
    subject: Annotated[str, typer.Argument(help="The subject, exactly as its records name it.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether to go on.")] = False,
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase what the hub holds of one subject of a site, for good; erase it at the site first (memory erase).

    Example: edge-agent fleet erase plant-01 press-7 --yes --hub-dir /var/lib/edge-hub
    """
    client = connect(hub, token_file, hub_dir)
    if not yes:
        typer.confirm(f"Erase all the hub holds of {subject!r} of site {site}, for good?", abort=True, err=True)
    answer = _ask(client, f"/api/v1/sites/{quote(site, safe='')}/subjects/{quote(subject, safe='')}")
    if as_json:
        emit_json(answer)
        return
    _say(f"erased at the hub: {answer['records']} records, {answer['facts']} facts; gaps stand in their place")
    if answer["quarantined"]:
        _say(f"and {answer['quarantined']} messages of the quarantine, which held its name or could not be read")
    if not answer["overwritten"]:
        _say("the database's old pages may hold them for a while: see docs/operations.md, Erase a subject")
    _say("backups that are older hold them still, and the site does unless `memory erase` ran there")


def _ask(client: Any, path: str) -> Any:
    """Exits 1 where there is no such thing."""
    try:
        return client.request("DELETE", path)
    except HubRefusal as error:
        if error.status != 404:
            raise
        _say(str(error).removeprefix("the hub refused: "))
        raise typer.Exit(FOUND) from None


def _what(kind: str, agent: str) -> str:
    whose = "all agents" if agent == ALL else f"agent {agent}"
    return f"{'records' if kind == ALL else f'{kind} records'} of {whose}"


def _say(line: str) -> None:
    talk.print(line, markup=False, soft_wrap=True)
