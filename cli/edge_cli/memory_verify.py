"""`edge-agent memory verify`: whether the journal is what the site wrote and signed, here and at the hub."""

import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from edge_agent.config import load_site
from edge_agent.memory.checkpoint import KEY_FILE, SigningKey
from edge_agent.memory.compare import Comparison, HubStream, compare
from edge_agent.memory.outbox import StreamState, streams
from edge_agent.memory.schema import reading
from edge_agent.memory.verify import verify
from edge_cli.fleet_verify import ask_to_verify, counted, place
from edge_cli.hub_client import HubClient, HubDirOption, HubOption, HubRefusal, TokenOption, connect
from edge_cli.output import FOUND, data, emit_json, talk
from edge_models.errors import ConfigError


def verify_command(
    memory: Annotated[
        Path, typer.Option("--memory", "-m", help="A memory.db, or the site file it belongs to.", show_default=True)
    ] = Path("site.yaml"),
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that the journal is what was written and signed; exits 1 when it is not, and says where.

    With --hub or --hub-dir the hub checks what it holds too, and both are compared.

    Example: edge-agent memory verify -m site.yaml --hub-dir /var/lib/edge-hub
    """
    path, site = _meant(memory)
    client = connect(hub, token_file, hub_dir) if hub is not None or hub_dir is not None else None
    if client is not None and site is None:
        raise ConfigError(f"{memory}: whose memory is it? To compare it with a hub, give the site file: -m site.yaml")
    theirs: dict[str, Any] | None = None
    with reading(path) as connection:
        if client is not None and site is not None:
            before = streams(connection)
            theirs = ask_to_verify(client, site)
            comparison = _compare(connection, before, theirs, client, site)
        report = verify(connection, site, _public_key(path))
    said: dict[str, Any] = {
        "streams": report.streams,
        "rows": report.rows,
        "evicted": report.evicted,
        "checkpoints": report.checkpoints,
        "pages_checked": report.pages,
        "findings": [asdict(each) | {"held_by": "site"} for each in report.findings],
    }
    if theirs is not None:
        said["findings"] += [each | {"held_by": "hub"} for each in theirs["findings"]]
        said["findings"] += [asdict(each) | {"held_by": "both"} for each in comparison.findings]
        said["hub"] = {"streams": theirs["streams"], "checkpoints": theirs["checkpoints"]}
        said["compared"] = comparison.compared
    _print(said, theirs, as_json)
    if said["findings"]:
        raise typer.Exit(FOUND)


def _meant(path: Path) -> tuple[Path, str | None]:
    """The database, and whose it is: a site file says so."""
    if path.suffix in (".yaml", ".yml"):
        site = load_site(path)
        return site.data / "memory.db", site.config.site
    return path, None


def _public_key(database: Path) -> str | None:
    """The journal's key, where it lies beside the database and may be read."""
    key = database.parent / KEY_FILE
    try:
        return SigningKey(key).public if key.exists() else None
    except (ConfigError, PermissionError) as error:
        talk.print(
            f"whether checkpoints are signed with this site's key is not known: {error}", markup=False, soft_wrap=True
        )
        return None


def _compare(
    connection: sqlite3.Connection, before: list[StreamState], theirs: dict[str, Any], client: HubClient, site: str
) -> Comparison:
    held = [
        HubStream((each["epoch"], each["lane"]), each["high"], bytes.fromhex(each["hash"]))
        for each in theirs["streams"]
    ]

    def ask(record: str) -> Mapping[str, Any] | None:
        try:
            found: dict[str, Any] = client.request("GET", f"/api/v1/sites/{quote(site, safe='')}/records/{record}")
        except HubRefusal as refusal:
            if refusal.status == 404:
                return None
            raise
        return found

    return compare(connection, before, held, ask)


def _print(said: dict[str, Any], theirs: dict[str, Any] | None, as_json: bool) -> None:
    if as_json:
        emit_json(said)
        return
    talk.print(
        f"{said['rows']} rows in {said['streams']} streams checked, {said['evicted']} declared as evicted,"
        f" {said['checkpoints']} checkpoints",
        soft_wrap=True,
    )
    if not said["pages_checked"]:
        talk.print(
            "the file is too large to have its pages checked in one go: every row was read instead", soft_wrap=True
        )
    if theirs is not None:
        talk.print(f"{counted(theirs)}; {said['compared']} streams compared", soft_wrap=True)
    for each in said["findings"]:
        where = {"site": "", "hub": "at the hub: ", "both": "here and at the hub: "}[each["held_by"]]
        data.print(f"{place(each)}  {where}{each['what']}", markup=False)
    if not said["findings"]:
        data.print("every chain holds")
