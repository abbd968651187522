"""`edge-agent node upgrade`: a plan for a new k3s on a site's nodes."""

from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from edge_cli.output import data, emit_json, talk
from edge_k3s.kitenv import NAME, read_env
from edge_k3s.upgrade import parse_window, plans
from edge_models.durable import replace
from edge_models.errors import ConfigError

app = typer.Typer(add_completion=False)
"""Holds the command for the group `edge-agent node`, which takes it over."""


@app.command()
def upgrade(
    to: Annotated[str, typer.Argument(metavar="VERSION", help="As v1.36.1+k3s1.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The plan's file, to be made.")],
    window: Annotated[str, typer.Option(metavar="WHEN", help="Days and times, as 'sat,sun 02:00-05:00'.")],
    since: Annotated[
        str | None, typer.Option("--from", metavar="VERSION", help="What the nodes have; left out: as --kit says.")
    ] = None,
    kit: Annotated[Path | None, typer.Option(metavar="KIT", help="The kit the site was made with.")] = None,
    zone: Annotated[str, typer.Option("--time-zone", metavar="ZONE", help="Of the window.")] = "UTC",
    image: Annotated[str, typer.Option(metavar="NAME", help="Of the upgrade, without tag.")] = "rancher/k3s-upgrade",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Write a plan of the system-upgrade-controller: one version, in a window, servers before agents.

    Example: edge-agent node upgrade v1.36.1+k3s1 --from v1.35.2+k3s1 --window "sun 02:00-05:00" --out up.yaml
    """
    try:
        ZoneInfo(zone)
    except (OSError, ValueError, KeyError):  # `ZoneInfoNotFoundError` is the last
        raise ConfigError(f"--time-zone {zone!r}: no such zone: write it as Europe/Berlin") from None
    current = since or _version_of(kit)
    text = plans(current, to, parse_window(window), zone, image)
    if out.exists():
        raise ConfigError(f"--out {out}: is there already")
    try:
        replace(out, text.encode(), 0o644)
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}") from None
    if as_json:
        emit_json({"file": str(out), "from": current, "to": to, "window": window, "time_zone": zone})
        return
    data.print(f"{out}: from {current} to {to}, {window} ({zone})", markup=False)
    talk.print("put it into k3s's manifests folder of one server; its first lines say how", markup=False)


def _version_of(kit: Path | None) -> str:
    if kit is None:
        raise ConfigError("what do the nodes have? Give --from VERSION, or the kit they were made with: --kit KIT")
    try:
        version = read_env((kit / NAME).read_text("utf-8")).k3s_version
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"--kit {kit}: no readable {NAME}: is it the folder of a kit?") from None
    if version is None:
        raise ConfigError(f"--kit {kit}: does not say its k3s's version: give --from VERSION")
    return version
