"""`edge-agent hub`: the hub."""

from pathlib import Path
from typing import Annotated

import typer

from edge_cli.logs import log_to_stderr
from edge_cli.output import talk
from edge_models.errors import ConfigError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The hub.")


@app.callback()
def _group() -> None:
    """With a callback, typer keeps `serve` a word of its own while it is the only command."""


@app.command()
def serve(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The hub's folder; made where there is none.", show_default=False)
    ],
    http: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the API listens; port 0: any.")
    ] = "127.0.0.1:8600",
    broker: Annotated[
        str, typer.Option(metavar="URL|embedded", help="The MQTT broker; embedded: one of the hub's own.")
    ] = "embedded",
) -> None:
    """Run a hub: take in what sites deliver, serve the API, tell sites what to run; Ctrl-C or SIGTERM ends it.

    Example: edge-agent hub serve /var/lib/edge-hub --http 127.0.0.1:8600
    """
    try:
        from edge_hub.serve import serve as serve_hub  # noqa: PLC0415 - the extra is needed to serve, not for --help
    except ModuleNotFoundError as error:
        raise ConfigError(f"a hub needs the extra [hub] ({error.name}): pip install 'edge-agent-kit[hub]'") from None

    log_to_stderr("info")
    serve_hub(folder, http, broker, lambda line: talk.print(line, markup=False, soft_wrap=True))
