"""`edge-agent hub`: the hub."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_cli import hub_authority, hub_backup, hub_manifests, hub_secrets, hub_work
from edge_cli.hub_extra import hub_extra
from edge_cli.logs import log_to_stderr
from edge_cli.output import talk

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The hub.")
app.command("backup")(hub_backup.backup)
app.command("restore")(hub_backup.restore)
app.command("manifests")(hub_manifests.command)
app.command("take-secrets")(hub_secrets.command)
app.command("work")(hub_work.command)
app.add_typer(hub_authority.app, name="ca")


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
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="postgresql://USER@HOST/NAME in place of SQLite in DIR; its password: ~/.pgpass, or PGPASSFILE.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, max=99, help="Processes that take in; with 1 the hub does it itself.")
    ] = 1,
    mqtts: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where its own broker listens for sites on other machines: TLS, by certificate (docs/operations.md).",
        ),
    ] = None,
    enrol: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where sites get their certificates, as in 0.0.0.0:8443; with --mqtts."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="DNS_OR_IP", help="A name that sites reach this hub by; repeat, kits name the first."),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The authority for certificates, if it does not lie in DIR/ca.")
    ] = None,
) -> None:
    """Run a hub: take in what sites deliver, serve the API, tell sites what to run; Ctrl-C or SIGTERM ends it.

    Example: edge-agent hub serve /var/lib/edge-hub --http 127.0.0.1:8600 --mqtts 0.0.0.0:8883 --enrol 0.0.0.0:8443
    --name hub.example.com
    """
    with hub_extra():
        from edge_hub.serve import serve as serve_hub  # noqa: PLC0415

    log_to_stderr("info")
    crew = [sys.executable, "-m", "edge_cli.hub_worker"]
    serve_hub(folder, http, broker, _say, database, workers, crew, mqtts, enrol, name or (), ca)


def _say(line: str) -> None:
    talk.print(line, markup=False, soft_wrap=True)
