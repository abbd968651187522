"""`edge-agent hub ca`: the authority that a hub's certificates come from."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from edge_cli.hub_extra import hub_extra
from edge_cli.output import emit_json, talk

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The authority that certificates come from.")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, as in HUB/ca.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Make an authority in a new folder, where `hub serve --ca DIR` finds it; one in HUB/ca it makes by itself.

    Example: edge-agent hub ca init /etc/edge-hub/ca
    """
    with hub_extra():
        from edge_hub.enrol.authority import make_authority  # noqa: PLC0415
        from edge_hub.enrol.enrolment import describe  # noqa: PLC0415
    made = make_authority(folder, time.time_ns() // 1000)
    if as_json:
        emit_json({"path": str(made.path), "root_sha256": made.pin, "root": made.root_pem.decode()})
    talk.print(describe(made), markup=False, soft_wrap=True)


@app.command()
def renew(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The authority's folder, as HUB/ca.", show_default=False)
    ],
    root_key: Annotated[
        Path | None, typer.Option("--root-key", metavar="FILE", help="The root's key; left out: DIR/root.key.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Have the authorities of sites and of servers last five years from now; sites notice nothing, no kit changes.

    Example: edge-agent hub ca renew /var/lib/edge-hub/ca --root-key /media/safe/root.key
    """
    with hub_extra():
        from edge_hub.enrol.renewing import renew_authority  # noqa: PLC0415
    renewed = renew_authority(folder, time.time_ns() // 1000, root_key)
    if as_json:
        emit_json({"path": str(renewed.path), "root_sha256": renewed.pin, "ends_us": renewed.ends_us})
        return
    ends = datetime.fromtimestamp(renewed.ends_us / 1e6, UTC)
    talk.print(f"{renewed.path}: good until {ends:%Y-%m-%d} now: start the hub again", markup=False, soft_wrap=True)
    talk.print("keep a new copy of the folder, and take root.key away again", markup=False, soft_wrap=True)
