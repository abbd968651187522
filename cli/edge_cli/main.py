"""The `edge-agent` command: every group of commands is a module of its own beside this one."""

import importlib
import os
import sys
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import typer
import typer.core

from edge_cli.output import INTERRUPTED, fail, talk
from edge_models.errors import KitError

COMMANDS = {
    "demo": "A hub, three sites and a story, on this machine.",
    "run": "Run a site.",
    "infer": "Run a bundle on one input, offline.",
    "doctor": "Say what is wrong with a site, and what to do.",
    "hub": "The hub.",
    "image": "Container images, made without a container engine.",
    "node": "Kits that turn a machine into a node of a site.",
    "model": "Build and inspect bundles.",
    "policy": "Check and test policies.",
    "agents": "Sign which agents may run.",
    "trust": "The keys that say what may run.",
    "release": "Make releases and push them.",
    "update": "What a site runs and should run; sticks for sites without a link.",
    "fleet": "What runs where.",
    "memory": "A site's journal.",
}
"""Name → its line in `edge-agent --help`. Module `edge_cli.NAME` holds it, as a typer app named `app`."""

EPILOG = (
    "Exit codes: 0 done · 1 a check found something wrong · 2 a bad file or option · "
    "3 refused for good · 4 not now, try again · 130 Ctrl-C."
)


class LazyCommands(typer.core.TyperGroup):
    """Imports a command's module when it is called: `edge-agent run` carries nothing it does not use."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is typer's
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the signature is typer's
        if cmd_name not in COMMANDS:
            return None
        if _wants_list():
            return _line(cmd_name)
        command = typer.main.get_command(importlib.import_module(f"edge_cli.{cmd_name}").app)
        command.name = cmd_name
        return command


def _wants_list() -> bool:
    """Whether the caller asked for the list of commands, which needs no command's module."""
    return len(sys.argv) < 2 or sys.argv[1] in ("--help", "-h")


def _line(name: str) -> Any:
    """A command known by its help line only."""
    listed = typer.Typer()
    listed.command(name, help=COMMANDS[name])(lambda: None)
    return typer.main.get_command(listed)


app = typer.Typer(
    name="edge-agent",
    cls=LazyCommands,
    no_args_is_help=True,
    help="Put AI agents into factories and shops, and keep a fleet of them honest.",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Typer calls this before any command; there is nothing to do."""


def main() -> None:
    """The console script: a user's mistake ends in one line and an exit code, never in a traceback."""
    try:
        app()
    except KitError as error:
        fail(error)
    except KeyboardInterrupt:
        talk.print("stopped")
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    main()
