"""`edge-agent fleet losses`: what will never come of what sites wrote, and what a person should look at."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from edge_cli.hub_client import HubClient, HubDirOption, HubOption, TokenOption, connect
from edge_cli.output import data, emit_json, talk

PAGE = 1_000

ReasonOption = Annotated[
    str | None, typer.Option(help="Only losses of this kind, as in evicted, damaged, fork or unknown_tail.")
]


def losses_command(
    site: Annotated[str | None, typer.Argument(help="Only this site's.", show_default=False)] = None,
    reason: ReasonOption = None,
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """List the records that will never come, by range and reason, and after them the incidents of their sites.

    Example: edge-agent fleet losses plant-01 --hub-dir /var/lib/edge-hub
    """
    client = connect(hub, token_file, hub_dir)
    asked = {name: value for name, value in (("site", site), ("reason", reason)) if value is not None}
    lost = list(_losses(client, asked))
    of_site = {} if site is None else {"site": site}
    incidents = client.request("GET", _path("incidents", of_site | {"limit": str(PAGE)}))["incidents"]
    if as_json:
        emit_json({"losses": lost, "incidents": incidents})
        return
    if lost:
        _show(_LOSSES, [_loss(each) for each in lost])
    else:
        talk.print("nothing is known to be lost")
    if incidents:
        _show(_INCIDENTS, [_incident(each) for each in incidents])


def _losses(client: HubClient, asked: dict[str, str]) -> Iterator[dict[str, Any]]:
    """All of them, page by page."""
    after: dict[str, str] = {}
    while True:
        answer = client.request("GET", _path("losses", asked | {"limit": str(PAGE)} | after))
        yield from answer["losses"]
        if answer["next"] is None:
            return
        after = {"after": answer["next"]}


def _path(what: str, asked: dict[str, str]) -> str:
    return f"/api/v1/{what}?{urlencode(asked)}"


_LOSSES = ("SITE", "COUNT", "KIND", "SINCE", "RANGE", "REASON")
_INCIDENTS = ("SITE", "TIMES", "INCIDENT", "FIRST", "LAST", "DETAIL")


def _loss(each: dict[str, Any]) -> tuple[str, ...]:
    where = each["epoch"]
    if each["lane"] is not None:
        where = f"{where}:{each['lane']}:{each['first']}-{each['last']}"
    count = "?" if each["count"] is None else str(each["count"])
    return (each["site"], count, each["kind"].replace("_", " "), _time(each["at_us"]), where, each["reason"])


def _incident(each: dict[str, Any]) -> tuple[str, ...]:
    detail = " ".join(f"{key}={value}" for key, value in each["detail"].items())
    what, times = each["what"].replace("_", " "), (_time(each["first_us"]), _time(each["last_us"]))
    return (each["site"], str(each["times"]), what, *times, detail or each["key"])


def _show(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table as wide as it has to be: whoever pipes it into a file or another program wants all of each reason."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        data.print(line.rstrip(), markup=False)


def _time(at_us: int | None) -> str:
    return "-" if not at_us else datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M")
