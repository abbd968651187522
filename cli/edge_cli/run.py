"""`edge-agent run`: a site."""

import signal
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from edge_agent.config import load_site
from edge_cli.logs import log_to_stderr

app = typer.Typer(add_completion=False)

MEND_AGAIN_S = 600.0
"""A mended memory is not mended again before: a disk that damages every file would keep a site from working."""


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="The site file.", show_default=False)],
    once: Annotated[
        bool, typer.Option("--once", help="Stop when every source is at its end (recorded files).")
    ] = False,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Use this data folder, not the site file's.")
    ] = None,
) -> None:
    """Run a site until SIGTERM or Ctrl-C; logs go to stderr as JSON lines.

    Example: edge-agent run site.yaml
    """
    from edge_agent.rehydrate import StoppedError  # noqa: PLC0415
    from edge_agent.site import SiteProcess  # noqa: PLC0415 - a bad site file is told before models are loaded

    site = load_site(file, data)
    log_to_stderr(site.config.log)
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    mended_at = -MEND_AGAIN_S
    while True:
        try:
            process = SiteProcess(site, stop.is_set)
        except StoppedError:
            return
        try:
            process.start()
            process.wait(stop, once, mends=time.monotonic() - mended_at >= MEND_AGAIN_S)
        finally:
            process.close()
        if process.damage is None or stop.is_set() or (once and process.supervisor.exhausted()):
            return
        mended_at = time.monotonic()
