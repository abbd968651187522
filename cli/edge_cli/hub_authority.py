"""`edge-agent hub ca`: the authority that a hub's certificates come from."""

import time
from pathlib import Path
from typing import Annotated

import typer

from edge_cli.output import emit_json, talk
from edge_models.errors import ConfigError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The authority that certificates come from.")


@app.callback()
def _group() -> None:
    """With a callback, typer keeps `init` a word of its own while it is the only command."""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, as in HUB/ca.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Make an authority in a new folder, where `hub serve --ca DIR` finds it; one in HUB/ca it makes by itself.

    Example: edge-agent hub ca init /etc/edge-hub/ca
    """
    try:
        from edge_hub.enrol.authority import make_authority  # noqa: PLC0415 - needs the extra
        from edge_hub.enrol.enrolment import describe  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(f"a hub needs the extra [hub] ({error.name}): pip install 'edge-agent-kit[hub]'") from None

    made = make_authority(folder, time.time_ns() // 1000)
    if as_json:
        emit_json({"path": str(made.path), "root_sha256": made.pin, "root": made.root_pem.decode()})
    talk.print(describe(made), markup=False, soft_wrap=True)
