"""How commands speak: data on stdout, talk on stderr, one readable line for every error, one table of exit codes."""

import sys
from typing import Any, NoReturn

import orjson
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from edge_models.errors import ConfigError, KitError, RejectedError, RetryableError

OK, FOUND, CONFIG, REJECTED, RETRY, INTERRUPTED = 0, 1, 2, 3, 4, 130
"""Exit codes: done; a check found something wrong; bad file or option; refused for good; try again later; Ctrl-C."""

talk = Console(stderr=True, highlight=False)
"""Progress and remarks for a person; never data."""

data = Console(highlight=False, soft_wrap=True)
"""Tables and text that are the answer."""


def show_table(table: Table) -> None:
    """Print a table at the width it needs, however narrow the terminal: half a name is no answer."""
    needed = Measurement.get(data, data.options.update(max_width=10_000), table).maximum
    wide = data if needed <= data.width else Console(highlight=False, soft_wrap=True, width=needed)
    wide.print(table)  # a console prints nothing wider than itself


def emit_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")


def exit_code(error: BaseException) -> int:
    """The exit code that the error's class maps to."""
    table = {
        ConfigError: CONFIG,
        RejectedError: REJECTED,
        RetryableError: RETRY,
        KeyboardInterrupt: INTERRUPTED,
    }
    return next((code for kind, code in table.items() if isinstance(error, kind)), FOUND)


def fail(error: KitError) -> NoReturn:
    """Say the error in one line on stderr and leave with its exit code."""
    talk.print(f"[bold red]error:[/] {_plain(error)}", soft_wrap=True)
    raise SystemExit(exit_code(error))


def _plain(error: KitError) -> str:
    return " ".join(str(error).split()).replace("[", r"\[")
