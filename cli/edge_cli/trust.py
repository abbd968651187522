"""`edge-agent trust`: the keys that say what may run, which never lie at the hub."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from edge_cli.hub_client import HubClient, HubDirOption, HubOption, TokenOption, connect
from edge_cli.output import data, emit_json, show_table, talk
from edge_cli.repository import (
    PATH,
    KeysOption,
    PassphraseOption,
    PlainOption,
    hand_over,
    now,
    open_repository,
    passphrases,
)
from edge_models.errors import ConfigError, KitError

if TYPE_CHECKING:
    from edge_sync.trust.keys import Secrets
    from edge_sync.trust.repository import Repository

SOON_DAYS = 30

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The keys that say what may run.")

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The operator's folder.", show_default=False)]
RoleArgument = Annotated[
    str,
    typer.Argument(
        metavar="ROLE", help="root, targets, models, policies, agents; online, director: the hub's.", show_default=False
    ),
]
SignerOption = Annotated[
    str | None,
    typer.Option(
        "--signer", metavar="URI", help="A key that exists: encfile:, file2:, hsm:, awskms:, gcpkms:, azurekms:, hv:."
    ),
]
PublicOption = Annotated[
    str | None,
    typer.Option("--public-key", metavar="HEX|FILE", help="Of the hub's key, or of a signer that can't be asked now."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@app.command()
def init(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to make.", show_default=False)],
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    online_key: Annotated[
        str | None, typer.Option(metavar="HEX", help="The hub's online key, where no hub is asked.")
    ] = None,
    director_key: Annotated[
        str | None, typer.Option(metavar="HEX", help="The hub's director key, where no hub is asked.")
    ] = None,
    signer: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=URI", help="A key that exists, in place of a new file; repeat.")
    ] = None,
    passphrase_file: PassphraseOption = None,
    no_passphrase: PlainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the keys that say what may run, sign the first metadata with them, and hand these to the hub.

    Example: edge-agent trust init --out /secure/trust --hub https://hub.example --token-file operator.token
    """
    if (online_key is None) is not (director_key is None):
        raise ConfigError("give both --online-key and --director-key, or neither: then the hub is asked")
    client = None
    if online_key is None or director_key is None:
        client = connect(hub, token_file, hub_dir)
        online_key, director_key = _hub_keys(client)
        if client.request("GET", PATH).get("versions"):
            raise ConfigError("the hub has an operator already: use that folder (`edge-agent trust status DIR`)")
    elif hub is not None or hub_dir is not None:
        raise ConfigError("either the hub is asked for its keys, or they are given: not both")
    from edge_sync.trust.repository import Repository  # noqa: PLC0415 - as above

    secrets = _secrets(passphrase_file, no_passphrase)
    made = Repository.create(out, online_key, director_key, secrets, now, _signers(signer))
    versions = _first_hand_over(made, client) if client else None
    if as_json:
        keys = {"online_key": online_key, "director_key": director_key}
        emit_json({"folder": str(out), **keys, "roles": _roles(made), "versions": versions})
    else:
        _show(made)
    _say(f"sites are given {out / 'metadata' / '1.root.json'}: what they trust follows from it")
    files = [key.place.partition(":")[2] for row in made.status() if row.role == "root" for key in row.keys if key.here]
    if len(files) > 1:
        away = " and ".join(Path(file).name for file in files[1:])
        _say(f"root keys belong on other media: keep {away} elsewhere; --keys DIR finds them again")
    if client is None:
        _say(f"the hub has nothing of this yet: edge-agent trust push {out}")


@app.command()
def status(
    folder: FolderArgument,
    keys: KeysOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which version of each role counts, until when, and where its keys are.

    Example: edge-agent trust status /secure/trust
    """
    repository = open_repository(folder, keys or ())
    if as_json:
        signed = {
            path: {"name": target.name, "size_bytes": target.size_bytes} for path, target in repository.signed().items()
        }
        emit_json({"folder": str(folder), "roles": _roles(repository), "signed": signed})
    else:
        _show(repository)
    for row in repository.status():
        if row.days_left is not None and row.days_left < SOON_DAYS:
            ends = "has ended" if row.days_left < 0 else f"ends in {row.days_left} days"
            _say(f"{row.role} {ends}: edge-agent trust renew {folder} {row.role}")


@app.command()
def rotate(
    folder: FolderArgument,
    role: RoleArgument,
    signer: SignerOption = None,
    public_key: PublicOption = None,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    no_passphrase: PlainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give a role new keys in place of all it has.

    Example: edge-agent trust rotate /secure/trust root --keys /media/stick-2
    """
    repository = open_repository(folder, keys or ())
    new = repository.rotate(role, _secrets(passphrase_file, no_passphrase), signer, public_key)
    _done(folder, {"role": role, "keys": new}, f"{role}: {', '.join(new)}", as_json)
    _say("the keys it had before sign nothing any more: destroy them")


@app.command()
def add_key(
    folder: FolderArgument,
    role: RoleArgument,
    signer: SignerOption = None,
    public_key: PublicOption = None,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    no_passphrase: PlainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give a role one more key: a new file, or one that exists.

    Example: edge-agent trust add-key /secure/trust root --signer "hsm:2?label=YubiKey+PIV+%231234"
    """
    repository = open_repository(folder, keys or ())
    keyid = repository.add_key(role, _secrets(passphrase_file, no_passphrase), signer, public_key)
    _done(folder, {"role": role, "key": keyid}, f"{role}: {keyid}", as_json)


@app.command()
def revoke_key(
    folder: FolderArgument,
    role: RoleArgument,
    keyid: Annotated[str, typer.Argument(metavar="KEYID", help="As status shows it.", show_default=False)],
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a key from a role: sites that have the new metadata refuse what it signs.

    Example: edge-agent trust revoke-key /secure/trust targets 3fd9da6ffc7f
    """
    repository = open_repository(folder, keys or ())
    whole = repository.revoke_key(role, keyid, _secrets(passphrase_file))
    _done(folder, {"role": role, "revoked": whole}, f"{role}: {whole} revoked", as_json)


@app.command()
def renew(
    folder: FolderArgument,
    roles: Annotated[
        list[str] | None, typer.Argument(metavar="[ROLE]...", help="Which; all, if none is named.")
    ] = None,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign again what would end: roots last two years, the others one.

    Example: edge-agent trust renew /secure/trust targets models policies agents
    """
    from edge_sync.trust.paths import OFFLINE  # noqa: PLC0415 - as above

    repository = open_repository(folder, keys or ())
    renewed = repository.renew(_secrets(passphrase_file), roles or OFFLINE)
    _done(folder, {"renewed": renewed}, f"renewed: {', '.join(renewed) or 'nothing'}", as_json)


@app.command()
def withdraw(
    folder: FolderArgument,
    path: Annotated[str, typer.Argument(metavar="PATH", help="As status --json lists it.", show_default=False)],
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign something no longer: no site begins to run it.

    Example: edge-agent trust withdraw /secure/trust models/SHA256
    """
    open_repository(folder, keys or ()).withdraw(path, _secrets(passphrase_file))
    _done(folder, {"withdrawn": path}, f"{path}: withdrawn", as_json)


@app.command()
def push(
    folder: FolderArgument,
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hand the hub what was signed.

    Example: edge-agent trust push /secure/trust --hub-dir /var/lib/edge-hub
    """
    answer = hand_over(open_repository(folder), connect(hub, token_file, hub_dir))
    if as_json:
        emit_json(answer)
        return
    versions = ", ".join(f"{role} {version}" for role, version in answer.get("versions", {}).items())
    data.print(f"the hub has {versions}", markup=False)


def _secrets(passphrase_file: Path | None, plain: bool = False) -> "Secrets":
    if plain:
        _say("new key files are not encrypted: whoever reads them can sign")
    return passphrases(passphrase_file, sys.stdin.isatty(), plain)


def _hub_keys(client: HubClient) -> tuple[str, str]:
    answer = client.request("GET", PATH)
    try:
        return str(answer["online_key"]), str(answer["director_key"])
    except (KeyError, TypeError):
        raise ConfigError(f"the hub's answer to GET {PATH} names no keys: is it older than this kit?") from None


def _first_hand_over(made: "Repository", client: HubClient) -> dict[str, Any]:
    """As `hand_over`; what was made stays, whatever the hub says."""
    try:
        versions: dict[str, Any] = hand_over(made, client).get("versions", {})
    except KitError:
        _say(f"{made.folder} is made, and the hub has nothing of it yet: edge-agent trust push {made.folder}")
        raise
    return versions


def _signers(given: list[str] | None) -> dict[str, list[str]]:
    uris: dict[str, list[str]] = {}
    for each in given or ():
        role, equals, uri = each.partition("=")
        if not equals or not uri:
            raise ConfigError(f"--signer {each!r}: write ROLE=URI, as root=hsm:2")
        uris.setdefault(role, []).append(uri)
    return uris


def _roles(repository: "Repository") -> list[dict[str, Any]]:
    return [asdict(row) for row in repository.status()]


def _show(repository: "Repository") -> None:
    table = Table("role", "version", "days left", "needs", "key", "where", box=None, pad_edge=False)
    for row in repository.status():
        once = (row.role, str(row.version or "-"), str("-" if row.days_left is None else row.days_left))
        for number, key in enumerate(row.keys):
            place = f"{key.place}{' (not here)' if key.here is False else ''}".replace("[", r"\[")
            needs = f"{row.threshold} of {len(row.keys)}"
            table.add_row(*((*once, needs) if number == 0 else ("",) * 4), key.keyid[:16], place)
    show_table(table)


def _done(folder: Path, answer: dict[str, Any], line: str, as_json: bool) -> None:
    if as_json:
        emit_json(answer)
    else:
        data.print(line, markup=False)
    _say(f"the hub learns of it by: edge-agent trust push {folder}")


def _say(line: str) -> None:
    talk.print(line, markup=False, soft_wrap=True)
