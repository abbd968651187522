"""`edge-agent hub take-secrets`: what Kubernetes mounted, put where a hub and libpq read it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from edge_cli.output import emit_json, talk
from edge_hub.broker import BrokerFolder
from edge_hub.broker.credentials import User, dump_users, load_users
from edge_hub.broker.passwords import hash_password
from edge_hub.broker.roles import check_user
from edge_hub.files import make_private, write_private
from edge_k3s.hub.spec import HUB_FILES, PGPASS
from edge_models.errors import ConfigError
from edge_sync.signing import public_key

_PASSWORD = ".password"  # noqa: S105 - the end of a file's name


def take_secrets(source: Path, folder: Path, run: Path) -> list[Path]:
    """Put each file of `source` where it belongs, mode 0600: into the hub's `folder`, or into `run` what libpq reads.

    What is there already with the same content stays untouched. Nothing is put anywhere where one file has no place or
    can't be what its name says. Raises `ConfigError`.
    """
    try:
        wanted = list(_places(source, folder, run))
        users = _users(wanted, folder)
        for path, data in wanted:
            make_private(path.parent)
            if not path.exists() or path.read_bytes() != data:
                write_private(path, data)
        if users is not None:
            write_private(BrokerFolder(folder / "broker").credentials, dump_users(users))
    except OSError as error:
        raise ConfigError(f"secrets {error.filename or source}: {error.strerror}") from None
    return [path for path, _ in wanted]


def _places(source: Path, folder: Path, run: Path) -> Iterator[tuple[Path, bytes]]:
    """Where each secret belongs, and its content."""
    for path in sorted(source.iterdir()):
        if path.name.startswith("."):  # Kubernetes's own links
            continue
        data = path.read_bytes()
        if not data.strip():
            raise ConfigError(f"secret {path}: is empty")
        if path.name == PGPASS:
            yield run / PGPASS, data
        elif path.name in HUB_FILES:
            if path.suffix == ".key":
                public_key(path)
            yield folder / path.name, data
        elif path.name.endswith(_PASSWORD):
            check_user(path.name.removesuffix(_PASSWORD), "hub")
            yield folder / "broker" / path.name, data.strip()
        else:
            raise ConfigError(f"secret {path}: a hub has no place for it")


def _users(wanted: list[tuple[Path, bytes]], folder: Path) -> dict[str, User] | None:
    """The broker's users, if one of the passwords is new: else a hub would make another one at its start."""
    given = {path.name.removesuffix(_PASSWORD): data.decode() for path, data in wanted if path.suffix == _PASSWORD}
    users = load_users(folder / "broker" / "credentials.json")
    new = {name: password for name, password in given.items() if name not in users or not users[name].matches(password)}
    return users | {name: User("hub", hash_password(password)) for name, password in new.items()} if new else None


def command(
    source: Annotated[Path, typer.Argument(metavar="SECRETS", help="The folder they are mounted at.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The hub's folder.")],
    *,
    run: Annotated[Path, typer.Option(metavar="DIR", help="Where `pgpass` goes, for PGPASSFILE.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Put mounted secrets into a hub's folder before it starts; a pod's first container does it.

    Example: edge-agent hub take-secrets /etc/edge-hub/secrets /var/lib/edge-hub/hub --run /run/edge-hub
    """
    taken = take_secrets(source, folder, run)
    if as_json:
        emit_json({"taken": [str(path) for path in taken]})
    for path in taken:
        talk.print(f"taken: {path}", markup=False, soft_wrap=True)
