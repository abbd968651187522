"""`edge-agent hub backup|restore`: a hub's folder to another disk, and back."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_cli.hub_extra import hub_extra
from edge_cli.output import emit_json, talk

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def backup(
    folder: Annotated[Path, typer.Argument(metavar="HUB_DIR", help="The hub's folder.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR|FILE.tar", help="A new folder, or a new .tar file.")],
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", help="As given to `hub serve`: PostgreSQL is left to pg_dump, this is the rest."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a hub, while it runs, to a new folder or .tar: database, artifacts, keys, tokens and broker users.

    Example: edge-agent hub backup /var/lib/edge-hub --out /mnt/backup/hub-monday
    """
    with hub_extra():
        from edge_hub.backup.taking import back_up  # noqa: PLC0415
    manifest = back_up(folder, out, time.time_ns() // 1000, database is None)
    if manifest.schema_version is None:
        _say("the database is not in it, since it is no file of this folder: back PostgreSQL up with pg_dump first")
    if as_json:
        emit_json(_summary(manifest) | {"out": str(out)})
    else:
        _say(f"{len(manifest.files)} files, {manifest.size_bytes() / 1e6:.1f} MB in {out}: it holds the hub's keys")


def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="A backup's folder or .tar.", show_default=False)],
    folder: Annotated[
        Path, typer.Argument(metavar="HUB_DIR", help="The hub's folder: new or empty.", show_default=False)
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Set aside the stopped hub that is in HUB_DIR; it is not deleted.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a folder the hub of a backup, after every byte of it was checked.

    Example: edge-agent hub restore /mnt/backup/hub-monday /var/lib/edge-hub --replace
    """
    with hub_extra():
        from edge_hub.backup.restoring import restore as put_back  # noqa: PLC0415
    done = put_back(source, folder, replace, time.time_ns() // 1000)
    if done.manifest.schema_version is None:
        _say("the database is not in this backup: restore it with pg_restore, then erase again what was erased since")
    elif done.set_aside is None:
        _say("subjects that were erased after this backup are back: erase them again (edge-agent fleet erase)")
    if as_json:
        extra = {"set_aside": None if done.set_aside is None else str(done.set_aside)}
        emit_json(_summary(done.manifest) | extra | {"folder": str(folder), "erased_again": done.erased_again})
        return
    taken = datetime.fromtimestamp(done.manifest.at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    _say(f"{folder} is the hub as it was at {taken}; sites send again what it lacks when it runs")
    if done.set_aside is not None:
        _say(f"the hub that was there is in {done.set_aside}; records erased again: {done.erased_again}")


def _summary(manifest: Any) -> dict[str, Any]:
    return {
        "at_us": manifest.at_us,
        "kit": manifest.kit,
        "schema": manifest.schema_version,
        "files": len(manifest.files),
        "size_bytes": manifest.size_bytes(),
    }


def _say(line: str) -> None:
    talk.print(line, markup=False, soft_wrap=True)
