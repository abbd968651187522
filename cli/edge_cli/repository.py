"""The operator's folder as commands open it: its keys, their passphrases, and handing what was signed to a hub."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_cli.hub_client import HubClient
from edge_models.errors import ConfigError

if TYPE_CHECKING:
    from edge_sync.trust.keys import Secrets
    from edge_sync.trust.repository import Repository

PASSPHRASE_VARIABLE = "EDGE_TRUST_PASSPHRASE"  # noqa: S105 - its name
PATH = "/api/v1/trust"

KeysOption = Annotated[
    list[Path] | None, typer.Option("--keys", metavar="DIR", help="Further folder with key files, as a stick; repeat.")
]
PassphraseOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help=f"Of the key files; else {PASSPHRASE_VARIABLE}, else it is asked for."),
]
PlainOption = Annotated[bool, typer.Option("--no-passphrase", help="Leave new key files unencrypted.")]


def open_repository(folder: Path, media: Sequence[Path] = ()) -> "Repository":
    """The operator's folder; `media`: further folders with key files. Raises `ConfigError` where it is none."""
    from edge_sync.trust.repository import Repository  # noqa: PLC0415 - what only looks at --help needs no TUF

    return Repository(folder, now, media)


def passphrases(passphrase_file: Path | None, interactive: bool, plain: bool = False) -> "Secrets":
    """Who is asked for secrets: the file, else the variable EDGE_TRUST_PASSPHRASE, else, if `interactive`, the person.

    The first two are for key files only: a wrong PIN too many locks a device. `plain`: new key files have none.
    Raises `ConfigError`, then or when asked, where there is nobody to ask.
    """
    from edge_sync.trust.keys import NEW  # noqa: PLC0415 - as above

    fixed = _given(passphrase_file)
    typed: dict[str, str] = {}

    def secret(name: str) -> str | None:
        is_new, is_file = name.endswith(NEW), ":" not in name
        if is_new and plain:
            return None
        if is_file and fixed is not None:
            return fixed
        if not interactive:
            raise ConfigError(f"key {name}: {_unasked(is_file, is_new)}")
        if not is_file:
            return _ask(f"PIN of {name}")
        file = name.removesuffix(NEW)
        if file in typed:
            return typed[file]
        before = list(typed.values())[-1] if typed else ""
        came = _ask(f"Passphrase of {name}{', or Enter for the same as before' if before else ''}", before)
        if is_new and came not in typed.values() and came != _ask("The same again"):
            raise ConfigError(f"key {name}: the two passphrases are not the same")
        typed[file] = came
        return came

    return secret


def hand_over(repository: "Repository", client: HubClient) -> dict[str, Any]:
    """Give the hub what was signed; what it then has: ``{"versions": {role: version}}``.

    Raises `HubRefusal` where it can't follow from what it has, `RetryableError` where it does not answer.
    """
    files = {name: content.decode() for name, content in repository.files().items()}
    answer: dict[str, Any] = client.request("PUT", PATH, json={"files": files})
    return answer


def now() -> datetime:
    """The machine's clock, UTC: what is signed begins and ends by it."""
    return datetime.now(UTC)


def _given(passphrase_file: Path | None) -> str | None:
    if passphrase_file is None:
        return os.environ.get(PASSPHRASE_VARIABLE) or None
    try:
        text = passphrase_file.read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"passphrase file {passphrase_file}: {error.strerror}") from None
    except UnicodeDecodeError:
        text = ""
    if not text or "\n" in text:
        raise ConfigError(f"passphrase file {passphrase_file}: wanted one line")
    return text


def _unasked(is_file: bool, is_new: bool) -> str:
    if not is_file:
        return "a PIN is needed: run this on a terminal"
    remedies = f"give --passphrase-file FILE or set {PASSPHRASE_VARIABLE}"
    return f"a passphrase is needed: {remedies}{', or --no-passphrase' if is_new else ''}"


def _ask(text: str, default: str = "") -> str:
    came: str = typer.prompt(text, default=default, hide_input=True, show_default=False, err=True)
    return came
