"""`edge-agent node backup|restore`: what a site remembers, to one file and back."""

import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from edge_agent.backup.archive import Manifest
from edge_agent.config import load_site
from edge_cli.node_join import AsJson, DataFolder
from edge_cli.output import data, emit_json, talk
from edge_models.errors import ConfigError, RejectedError

app = typer.Typer(add_completion=False)
"""Holds the commands for the group `edge-agent node`, which takes them over."""

STREAM = Path("-")

_ZSTD = b"\x28\xb5\x2f\xfd"
"""What a backup begins with. Source: RFC 8878, section 3.1.1."""


@app.command("backup")
def backup_command(
    file: Annotated[Path | None, typer.Argument(metavar="SITE.yaml", help="The site file.", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A new file, as plant-07.tar.zst; - is standard output.")
    ] = None,
    with_identity: Annotated[
        bool, typer.Option("--with-identity", help="Also the site's keys, certificate and site file.")
    ] = False,
    no_models: Annotated[
        bool, typer.Option("--no-models", help="Without models and policies: the hub sends them again.")
    ] = False,
    listed: Annotated[
        Path | None, typer.Option("--list", metavar="FILE", help="Make none: check this one, and say what is in it.")
    ] = None,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Back up what a site remembers, while it runs or not, to one file; or check such a file and say what it holds.

    Example: edge-agent node backup site.yaml --out plant-07.tar.zst
    """
    if listed is not None:
        if file is not None or out is not None:
            raise ConfigError("--list makes no backup: leave the site file and --out away")
        _list(listed, as_json)
        return
    if file is None or out is None:
        raise ConfigError("a backup of what, and where to? edge-agent node backup SITE.yaml --out FILE")
    from edge_agent.backup.taking import back_up  # noqa: PLC0415 - `node --help` needs none of a memory

    target = _stdout(as_json) if out == STREAM else out
    site = load_site(file, data_folder)
    keys = file if with_identity else None
    manifest = back_up(site, target, time.time_ns() // 1000, keys, with_models=not no_models)
    if as_json:
        emit_json({**_summary(manifest), "out": str(out)})
        return
    where = "standard output" if out == STREAM else str(out)
    _say(f"{manifest.site}: {manifest.records} records, {manifest.size_bytes() / 1e6:.1f} MB unpacked, in {where}")
    _say(manifest.about)


@app.command("restore")
def restore_command(
    backup: Annotated[
        Path, typer.Argument(metavar="BACKUP", help="A backup's file; - is standard input.", show_default=False)
    ],
    file: Annotated[Path, typer.Argument(metavar="SITE.yaml", help="The site file.", show_default=False)],
    force: Annotated[
        bool, typer.Option("--force", help="Set aside the memory that is there; it is not deleted.")
    ] = False,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Have a stopped site remember what a backup holds, after every byte of that was checked.

    Example: edge-agent node restore plant-07.tar.zst site.yaml
    """
    from edge_agent.backup.restoring import restore  # noqa: PLC0415 - as above

    if not file.exists():
        raise ConfigError(
            f"{file}: no such site file: it comes with the kit; a backup made --with-identity holds it too "
            f"(tar --zstd -xOf {backup} site.yaml)"
        )
    _check_order(backup, file)
    site = load_site(file, data_folder)
    with _opened(backup) as source:
        try:
            done = restore(source, _called(backup), site, force, time.time_ns() // 1000)
        except RejectedError as error:
            anew = "" if site.config.hub is None else ", or start the site without one: its hub gives its facts back"
            raise RejectedError(f"{error}; nothing was changed: restore another backup{anew}") from None
    if as_json:
        extra = {"set_aside": None if done.set_aside is None else str(done.set_aside), "kept": list(done.kept)}
        emit_json({**_summary(done.manifest), **extra, "new_epoch": done.epoch, "unknown": done.unknown})
        return
    _say(f"{done.manifest.site} remembers what it did at {_when(done.manifest)}: start it")
    if site.config.hub is not None:
        _say("what it wrote after that is at the hub, or lost: edge-agent fleet losses. Its facts come with the start")
    if done.unknown:
        _say(f"{done.unknown} acts were open then: nobody here knows whether they were done")
    if done.set_aside is not None:
        _say(f"the memory that was there is {done.set_aside}: delete it when nobody wants it")
    if done.kept:
        _say(f"what was here of these stays: {', '.join(done.kept)}")


def _list(file: Path, as_json: bool) -> None:
    from edge_agent.backup.restoring import look_into  # noqa: PLC0415 - as above

    with _opened(file) as source:
        manifest = look_into(source, _called(file))
    if as_json:
        emit_json({**_summary(manifest), "file_sizes": {name: each.size for name, each in manifest.files.items()}})
        return
    data.print(manifest.about, markup=False)
    release = "the site file's release" if manifest.release is None else f"release {manifest.release}"
    data.print(f"as of {_when(manifest)}: {manifest.records} records, {release}, by {manifest.kit}", markup=False)
    for name, entry in manifest.files.items():
        data.print(f"{entry.size:>12} {name}", markup=False)
    for name, why in manifest.left_out.items():
        data.print(f"{'not in it':>12} {name}: {why}", markup=False)
    _say("every file is what its sha256 says")


def _stdout(as_json: bool) -> BinaryIO:
    if as_json:
        raise ConfigError("--json: standard output is the backup already")
    if sys.stdout.isatty():
        raise ConfigError("--out -: standard output is a terminal: send it into a file")
    return sys.stdout.buffer


def _check_order(backup: Path, file: Path) -> None:
    """Raises `ConfigError` where what should be the site file is a backup."""
    with suppress(OSError), file.open("rb") as opened:  # who reads the site file says what is wrong with it
        if opened.read(len(_ZSTD)) == _ZSTD:
            right = f": edge-agent node restore {file} {backup}" if backup.suffix in (".yaml", ".yml") else ""
            raise ConfigError(f"{file} is a backup, or packed like one: the site file comes second{right}")


def _opened(file: Path) -> BinaryIO:
    if file == STREAM:
        return sys.stdin.buffer
    try:
        return file.open("rb")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None


def _called(file: Path) -> str:
    return "on standard input" if file == STREAM else str(file)


def _when(manifest: Manifest) -> str:
    return datetime.fromtimestamp(manifest.at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _summary(manifest: Manifest) -> dict[str, Any]:
    plain = manifest.model_dump(mode="json", exclude={"files", "format"})
    return {**plain, "files": len(manifest.files), "size_bytes": manifest.size_bytes()}


def _say(line: str) -> None:
    talk.print(line, markup=False, soft_wrap=True)
