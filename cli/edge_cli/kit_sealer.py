"""Who signs kits: a `targets` key of the operator's folder, which is made where the hub has no operator yet."""

import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edge_cli.hub_client import HubClient
from edge_cli.output import talk
from edge_cli.repository import hand_over, passphrases
from edge_k3s.sealing import Sealer
from edge_models.errors import ConfigError, KitError

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

    from edge_sync.trust.keys import Secrets

TRUST_VARIABLE = "EDGE_TRUST"


def default_folder() -> Path:
    """Where an operator's folder is looked for, and made, when none is named."""
    return Path(typer.get_app_dir("edge-agent")) / "trust"


def find_sealer(
    folder: Path | None,
    media: Sequence[Path],
    passphrase_file: Path | None,
    plain: bool,
    hub: HubClient,
) -> tuple[Sealer, bytes]:
    """The sealer, and the newest root of its folder, which names its key.

    Where there is no folder and the hub has no operator either, one is made and handed to the hub; its place is said.
    `plain`: with keys that are not encrypted. Raises `ConfigError` where nobody can sign.
    """
    from edge_sync.trust.folder import VERSIONS  # noqa: PLC0415 - what only looks at --help needs no TUF

    place = folder or default_folder()
    secrets = passphrases(passphrase_file, sys.stdin.isatty(), plain)
    if not (place / VERSIONS).is_file():
        _make(place, secrets, plain, hub)
    return _load(place, media, secrets)


def _make(place: Path, secrets: "Secrets", plain: bool, hub: HubClient) -> None:
    from edge_sync.trust.repository import Repository  # noqa: PLC0415 - as above

    standing = hub.request("GET", "/api/v1/trust")
    if standing.get("versions"):
        raise ConfigError(
            f"a kit is signed with the operator's key, and {place} is no operator's folder: name it with --trust DIR "
            "(or --unsigned, and nobody can tell your kit from another's)"
        )
    try:
        online, director = str(standing["online_key"]), str(standing["director_key"])
    except KeyError:
        raise ConfigError("the hub names no keys of its own: is it older than this kit?") from None
    made = Repository.create(place, online, director, secrets, lambda: datetime.now(UTC))
    _say(f"the operator's keys are made: {place}. Keep a copy: who loses them signs nothing more")
    if plain:
        _say("they are not encrypted: whoever reads them can sign")
    try:
        hand_over(made, hub)
    except KitError:
        _say(f"the hub has nothing of it yet: edge-agent trust push {place}")
        raise


def _load(place: Path, media: Sequence[Path], secrets: "Secrets") -> tuple[Sealer, bytes]:
    from edge_sync.trust.folder import name_of, read  # noqa: PLC0415 - as above
    from edge_sync.trust.keys import KeyRing  # noqa: PLC0415 - as above

    state = read(place)
    root = state.root().signed
    ring = KeyRing(place, secrets, media)
    # A key that is not here now (a stick, a device) is asked for only where no other can sign.
    usable = [keyid for keyid in root.roles["targets"].keyids if root.keys[keyid].keytype == "ed25519"]
    usable.sort(key=lambda keyid: ring.is_here(state.signers.get(keyid, "")) is not True)
    for keyid in usable:
        if keyid in state.signers:
            signer = ring.load(state.signers[keyid], root.keys[keyid])
            return _sealer(signer, root.keys[keyid].keyval["public"]), state.files[name_of("root", root.version)]
    raise ConfigError(
        f"{place}: no targets key of it is ed25519, which a bare machine can verify: "
        f"edge-agent trust add-key {place} targets"
    )


def _sealer(signer: "Signer", public: str) -> Sealer:
    one_at_a_time = threading.Lock()  # kits are made by several threads, and a device signs for one

    def sign(sums: bytes) -> bytes:
        with one_at_a_time:
            return bytes.fromhex(signer.sign(sums).signature)

    return Sealer(public, sign)


def _say(line: str) -> None:
    talk.print(line, markup=False, soft_wrap=True)
