"""Sign what may run, and hand it over: shared by `model|policy|agents publish` and `release create`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_cli.hub_client import HubClient, HubRefusal, connect
from edge_cli.output import data, emit_json
from edge_cli.repository import hand_over, open_repository, passphrases
from edge_models.digests import Digest, digest_of
from edge_models.errors import ConfigError, RejectedError
from edge_sync.release import Release
from edge_sync.trust.collection import versions_of
from edge_sync.trust.paths import AGENTS, Kind, parts_of, target_path

if TYPE_CHECKING:
    from edge_sync.trust.keys import Secrets
    from edge_sync.trust.repository import Repository

AgainOption = Annotated[bool, typer.Option("--again", help="Also sign what was withdrawn.")]
TrustOption = Annotated[Path, typer.Option("--trust", metavar="DIR", help="The operator's folder.", show_default=False)]


def publish_file(
    kind: Kind,
    content: bytes,
    name: str,
    trust: Path,
    keys: list[Path] | None,
    passphrase_file: Path | None,
    hub: tuple[str | None, Path | None, Path | None],
    as_json: bool,
    again: bool = False,
) -> None:
    """Sign these bytes, and give them and the signature to the hub: the whole of a `publish` command.

    `hub` is what `connect` takes. Nothing is signed where the hub can't be reached.
    """
    from edge_sync.trust.repository import Target  # noqa: PLC0415 - what only looks at --help needs no TUF

    repository, client = open_repository(trust, keys or ()), connect(*hub)
    digest = digest_of(content)
    client.request("GET", "/api/v1/trust")
    secrets = passphrases(passphrase_file, sys.stdin.isatty())
    added = repository.add([Target(kind, digest, len(content), name)], secrets, again)
    if kind != AGENTS:  # those travel in the release
        upload(digest, content, client)
    versions = hand_over(repository, client)["versions"]
    if as_json:
        emit_json({"digest": digest, "name": name, "kind": kind, "new": bool(added), "versions": versions})
        return
    how = "signed and published" if added else "was signed already; published"
    data.print(f"{name}: {how} as {target_path(kind, digest)}", markup=False)


def sign_release(
    release: Release,
    blobs: Mapping[Digest, bytes],
    repository: "Repository",
    secrets: "Secrets",
    again: bool = False,
) -> list[str]:
    """Sign all of a release that is not signed yet; the new target paths."""
    from edge_sync.trust.repository import Target  # noqa: PLC0415 - as above

    document = release.document.encode()
    wanted: list[Target] = [Target(AGENTS, digest_of(document), len(document), f"release {release.release}")]
    for agent in release.agents:
        for kind, digest in parts_of(agent):
            wanted.append(Target(kind, digest, len(blobs[Digest(digest)]), release.artifacts[digest].name))
    return repository.add(wanted, secrets, again)


def unsigned_parts(release: Release, repository: "Repository") -> list[str]:
    """The names of the bundles and policies of a release that are not signed."""
    signed = repository.signed()
    missing = []
    for agent in release.agents:
        for kind, digest in parts_of(agent):
            if target_path(kind, digest) not in signed:
                missing.append(release.artifacts[digest].name)
    return missing


def hand_over_newer(files: Mapping[str, bytes], client: HubClient) -> bool:
    """Give the hub a set of metadata that was signed earlier, where it is newer than what it has in any part.

    Raises `RejectedError` where the hub has other metadata than it could follow from.
    """
    held = client.request("GET", "/api/v1/trust")["versions"]
    if all(version <= held.get(role, 0) for role, version in newest(files).items()):
        return False
    client.request("PUT", "/api/v1/trust", json={"files": {name: text.decode() for name, text in files.items()}})
    return True


def newest(files: Mapping[str, bytes]) -> dict[str, int]:
    """Role → highest version, by the names of the files. Raises `RejectedError` for a name that has none."""
    for name in files:
        if not versions_of([name]):
            raise RejectedError(f"{name}: is no file of trust metadata")
    return versions_of(files)


def read_file(path: Path) -> bytes:
    """The file's bytes. Raises `ConfigError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def upload(digest: str, body: Path | bytes, client: HubClient) -> bool:
    """Give the hub an artifact; whether it lacked it."""
    try:
        client.request("GET", f"/api/v1/artifacts/{digest}")
    except HubRefusal as refusal:
        if refusal.status != 404:
            raise
        client.request("PUT", f"/api/v1/artifacts/{digest}", body=body)
        return True
    return False
