"""`edge-agent hub work`: one ingest worker, in a place of its own beside a hub with broker and database elsewhere."""

import re
import socket
from pathlib import Path
from typing import Annotated

import typer

from edge_cli.hub_extra import hub_extra
from edge_cli.logs import log_to_stderr
from edge_k3s.hub.spec import HUB_KEYS
from edge_models.errors import ConfigError
from edge_sync.mqtt import Broker


def work(folder: Path, number: int, broker: str, database: str) -> None:
    """Take in until SIGTERM. Raises `ConfigError` where the folder lacks what its hub has to share with it.

    A hub makes what it lacks: a worker with keys of its own would sign what no site believes.
    """
    with hub_extra():
        from edge_hub.hub import worker  # noqa: PLC0415
        from edge_hub.workers.worker import Order, run  # noqa: PLC0415
    Broker(broker, client_id="_hub").require_tls()
    user = worker(number).user
    for path in (*(folder / name for name in HUB_KEYS), folder / "broker" / f"{user}.password"):
        if not path.is_file():
            raise ConfigError(f"{path} is missing: a worker has its hub's keys, and a password of its own")
    run(Order(number, str(folder), broker, database))


def number_of(host: str) -> int:
    """The number that a host's name ends in, as a StatefulSet names its pods. Raises `ConfigError`."""
    found = re.search(r"-([1-9][0-9]?)$", host)
    if found is None:
        raise ConfigError(f"host {host!r} has no name as in workers-3: give the worker's --number")
    return int(found[1])


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder with the hub's keys and this user's password.")
    ],
    *,
    broker: Annotated[str, typer.Option(metavar="URL", help="The hub's broker.")],
    database: Annotated[str, typer.Option(metavar="URL", help="The hub's database, postgresql://USER@HOST/NAME.")],
    number: Annotated[
        int | None,
        typer.Option(min=1, max=99, help="Which worker it is, and no other; left out: what the host's name ends in."),
    ] = None,
) -> None:
    """Take in what some of the sites deliver, and share them with the hub's other workers; Ctrl-C or SIGTERM ends it.

    Example: edge-agent hub work /var/lib/edge-hub/hub --broker mqtts://mqtt.example.com
    --database postgresql://hub@db.example.com/hub?sslmode=verify-full --number 3
    """
    log_to_stderr("info")
    work(folder, number_of(socket.gethostname()) if number is None else number, broker, database)
