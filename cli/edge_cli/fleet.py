"""`edge-agent fleet`: what runs where, as the hub knows it."""

import time
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table

from edge_cli import fleet_enrol, fleet_explain, fleet_facts, fleet_keep, fleet_losses, fleet_verify
from edge_cli.hub_client import HubDirOption, HubOption, TokenOption, connect
from edge_cli.output import data, emit_json, show_table, talk
from edge_k3s.names import parse_labels
from edge_sync.rows import ERASED, EXPIRED

app = typer.Typer(add_completion=False, no_args_is_help=True, help="What runs where.")
app.command("losses")(fleet_losses.losses_command)
app.command("explain")(fleet_explain.explain_command)
app.command("verify")(fleet_verify.verify_command)
app.add_typer(fleet_keep.app, name="keep")
app.command("erase")(fleet_keep.erase)
app.command("facts")(fleet_facts.facts)
app.add_typer(fleet_facts.app, name="fact")
app.command("revoke")(fleet_enrol.revoke)
app.command("tokens")(fleet_enrol.list_tokens)
app.add_typer(fleet_enrol.app, name="token")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


class Link(StrEnum):
    """How a site's link stands, as far as the hub knows."""

    UP = "up"
    DOWN = "down"
    REVOKED = "revoked"


@app.command("ls")
def list_sites(
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only sites with this label; repeat for more.")
    ] = None,
    link: Annotated[Link | None, typer.Option(help="Only sites whose link stands so.")] = None,
    release: Annotated[int | None, typer.Option(metavar="N", help="Only sites that say they run this one.")] = None,
    lossy: Annotated[bool, typer.Option("--lossy", help="Only sites that lost records, or have some aside.")] = False,
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List sites: release and state of each, the records the hub holds of it, and what is still on its way or lost.

    Example: edge-agent fleet ls --link down --label kind=shop --hub http://127.0.0.1:8600 --token-file operator.token
    """
    wanted = parse_labels(label or [])
    answer = connect(hub, token_file, hub_dir).request("GET", "/api/v1/sites")
    every = answer["sites"]
    found = [
        site
        for site in every
        if wanted.items() <= site["labels"].items()
        and link in (None, _link(site))
        and release in (None, site["release"])
        and (not lossy or any(site[name] for name in ("lost", "unknown", "open_tails", "quarantined")))
    ]
    if as_json:
        emit_json(answer | {"sites": found})
        return
    if not every:
        talk.print("no site is registered: edge-agent node provision registers one")
        return
    if found:
        show_table(_table(found))
    if len(found) < len(every):
        talk.print(f"{len(found)} of {len(every)} sites")


@app.command("show")
def show_site(
    site: Annotated[str, typer.Argument(help="The site's id.", show_default=False)],
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one site: what it runs and should run, its streams of records, and what of them will never come.

    Example: edge-agent fleet show plant-01 --hub-dir /var/lib/edge-hub
    """
    client = connect(hub, token_file, hub_dir)
    shown = client.request("GET", f"/api/v1/sites/{quote(site, safe='')}")
    gaps = client.request("GET", f"/api/v1/sites/{quote(site, safe='')}/gaps")["gaps"]
    if as_json:
        emit_json(shown | {"gaps": gaps})
        return
    show_table(_table([shown]))
    for line in _details(shown, gaps):
        data.print(line, markup=False)


def _table(sites: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("SITE", "LINK", "RELEASE", "STATE"):
        table.add_column(name, no_wrap=True)
    for name in ("RECORDS", "BACKLOG", "LOST", "UNKNOWN", "ASIDE"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("HEARD", no_wrap=True)
    for site in sites:
        table.add_row(
            site["site"],
            _link(site),
            _or_dash(site["release"]),
            _or_dash(site["state"]),
            *(str(site[name]) for name in ("records", "backlog", "lost")),
            f"{site['unknown']}{'+' if site['open_tails'] else ''}",
            str(site["quarantined"]),
            _ago(site["last_seen_us"]),
        )
    return table


def _link(site: dict[str, Any]) -> str:
    """A site that was revoked or retired is no broken link: nobody waits for it."""
    return "revoked" if site["revoked_us"] else "up" if site["online"] else "down"


def _details(shown: dict[str, Any], gaps: list[dict[str, Any]]) -> list[str]:
    labels = ", ".join(f"{key}={value}" for key, value in sorted(shown["labels"].items()))
    wanted = shown["desired"] or {}
    reason = (shown["reported"] or {}).get("reason")
    lines = [f"labels: {labels or 'none'}"]
    if shown["revoked_us"]:
        lines.append(f"revoked {_ago(shown['revoked_us'])}: nothing of it is let in until it is registered anew")
    elif shown.get("certificate_ends_us"):
        days = (shown["certificate_ends_us"] - time.time_ns() // 1000) // 86_400_000_000
        lines.append(f"its certificate is good for {days} more days" if days >= 0 else "its certificate has run out")
    if wanted:
        lines.append(f"should run: release {wanted['release']}, generation {wanted['generation']}")
    said = shown["reported"] or {}
    if said.get("hold"):
        lines.append(f"takes nothing new: {said['hold']}")
    if said.get("on_trial"):
        lines.append("on trial: what it runs is not confirmed yet")
    if said.get("behind_s"):
        lines.append(f"its clock is at least {said['behind_s']} s behind")
    if reason:
        lines.append(f"says: {reason}")
    lines += [f"stream {each['epoch']}:{each['lane']}: here up to {each['high']}" for each in shown["streams"]]
    for gap in gaps:
        span = f"{gap['epoch']}:{gap['lane']}:{gap['first']}-{gap['last']}"
        what = "let go" if gap["reason"].startswith((EXPIRED, ERASED)) else "lost"
        lines.append(f"{what} {gap['count']}: {span}: {gap['reason']}")
    if shown["unknown"]:
        lines.append(f"unknown {shown['unknown']}: never came and will not: edge-agent fleet losses {shown['site']}")
    if shown["open_tails"]:
        epochs = "an epoch" if shown["open_tails"] == 1 else f"{shown['open_tails']} epochs"
        lines.append(f"perhaps more: it lost {epochs} before the end: edge-agent fleet losses {shown['site']}")
    return lines


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)


def _ago(at_us: int | None) -> str:
    if at_us is None:
        return "never"
    seconds = max(0, time.time_ns() // 1000 - at_us) // 1_000_000
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"
