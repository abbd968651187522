"""`edge-agent release`: make a release from files, and push it to sites."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_agent.plugins import load_plugin
from edge_agent.policy import load_policy
from edge_agent.sources.base import SourceContext
from edge_agent.sources.registry import METHODS as SOURCE_METHODS
from edge_agent.tools.registry import METHODS as TOOL_METHODS
from edge_cli.hub_client import HubClient, HubDirOption, HubOption, HubRefusal, TokenOption, connect
from edge_cli.output import data, emit_json, talk
from edge_cli.publish import AgainOption, hand_over_newer, sign_release, upload
from edge_cli.repository import KeysOption, PassphraseOption, open_repository, passphrases
from edge_models.bundle import read_bundle
from edge_models.digests import Digest, digest_of
from edge_models.errors import ConfigError, RejectedError
from edge_sync.release import AgentSpec, Release, resolve
from edge_sync.yamlfile import load_yaml

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Make releases and push them.")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

DOCUMENT = "release.json"
BLOBS = Path("blobs") / "sha256"
TRUST = Path("trust")
"""In a release folder: what the operator signed, so that whoever pushes it needs no key."""


class ReleaseFile(BaseModel):
    """A release as a person writes it: paths begin at the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    release: Annotated[int, Field(ge=1)]
    agents: Annotated[list[AgentSpec], Field(min_length=1)]


def _mind(line: str) -> None:
    talk.print(f"mind: {line}", markup=False, soft_wrap=True)


def make_release(file: Path, mind: Callable[[str], None] = _mind) -> tuple[Release, dict[Digest, bytes]]:
    """The release this file describes, everything in it checked, and the bytes of its artifacts.

    `mind` is told of sources and tools that are not installed here: only the sites' image says whether they are there.
    Raises `ConfigError` or `RejectedError` naming the agent and the file.
    """
    written = load_yaml(file, ReleaseFile)
    release, blobs = resolve(written.release, written.agents, file.parent)
    for spec, agent in zip(written.agents, release.agents, strict=True):
        _check(spec, blobs[Digest(agent.bundle)], blobs[Digest(agent.policy)])
        _check_source(spec, mind)
        _check_grants(spec, mind)
    return release, blobs


def _check(spec: AgentSpec, bundle_bytes: bytes, policy_bytes: bytes) -> None:
    try:
        bundle = read_bundle(bundle_bytes)
    except RejectedError as error:
        raise RejectedError(f"agent {spec.name!r}: {spec.bundle}: {error}") from None
    policy = load_policy(policy_bytes, spec.policy)
    if strange := sorted(policy.labels.difference(bundle.contract.labels)):
        known = ", ".join(bundle.contract.labels)
        raise ConfigError(
            f"agent {spec.name!r}: {spec.policy} speaks of label {strange[0]!r}; {spec.bundle} knows {known}"
        )
    if not bundle.contract.labels:
        raise ConfigError(
            f"agent {spec.name!r}: {spec.bundle} is for {bundle.contract.task}; agents act on what classifies or reads"
        )
    wanted = [each.name for each in bundle.contract.inputs]
    wanted += ["text"] if any(step.name == "tokenize" for step in bundle.contract.steps) else []
    if strange := sorted(set(spec.inputs).difference(wanted)):
        raise ConfigError(
            f"agent {spec.name!r}: `inputs` names {strange[0]!r}; {spec.bundle} takes {', '.join(wanted)}"
        )
    if ungranted := sorted(policy.tools.difference(spec.grants)):
        raise ConfigError(f"agent {spec.name!r}: {spec.policy} calls {ungranted[0]}: add it to the agent's grants")


class _SiteFileNeededError(Exception):
    """A source asked for an endpoint, which only a site file has: what it says from there on is not of the release."""


def _check_source(spec: AgentSpec, mind: Callable[[str], None]) -> None:
    """Make the source, which checks its options and opens nothing. Raises `ConfigError` where they are wrong."""
    kind, who = spec.source.kind, f"agent {spec.name!r}: "
    try:
        source = load_plugin("edge_agent.sources", kind, SOURCE_METHODS)
    except ConfigError as error:
        mind(f"{who}{error} on this machine; it starts only at sites whose image brings that source")
        return
    nowhere = Path(os.devnull)  # nothing is found below it, and nothing can be made
    context = SourceContext("site", spec.name, nowhere, nowhere, _no_endpoint, lambda: time.time_ns() // 1000)
    try:
        source(spec.source.options, context)
    except _SiteFileNeededError:
        pass
    except ConfigError as error:
        # A file or a library that this machine lacks may well be at the site.
        if not isinstance(error.__context__, OSError | ImportError):
            raise ConfigError(who + str(error).removeprefix(who)) from None
    except Exception as error:  # noqa: BLE001 - whatever a third party's class does
        mind(f"{who}source {kind} could not be checked on this machine: {type(error).__name__}: {error}")


def _no_endpoint(name: str) -> NoReturn:
    raise _SiteFileNeededError(name)


def _check_grants(spec: AgentSpec, mind: Callable[[str], None]) -> None:
    for tool in dict.fromkeys(spec.grants):
        try:
            load_plugin("edge_agent.tools", tool, TOOL_METHODS)
        except ConfigError as error:
            mind(f"agent {spec.name!r}: {error} on this machine; it acts only at sites whose image brings that tool")


def write_release(
    release: Release, blobs: Mapping[Digest, bytes], out: Path, metadata: Mapping[str, bytes] | None = None
) -> None:
    """Write a release folder; the document comes last, so that a folder with one is whole. Raises `ConfigError`.

    `metadata` is what the operator signed; without, sites refuse the release until the hub has that from elsewhere.
    """
    try:
        if metadata:
            (out / TRUST).mkdir(parents=True, exist_ok=True)
            for old in (out / TRUST).iterdir():
                old.unlink()
            for name, text in metadata.items():
                (out / TRUST / name).write_bytes(text)
        (out / BLOBS).mkdir(parents=True, exist_ok=True)
        for digest, blob in blobs.items():
            (out / BLOBS / digest.removeprefix("sha256:")).write_bytes(blob)
        (out / DOCUMENT).write_text(release.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"{out}: {error.strerror}") from None


def read_release(folder: Path) -> Release:
    """The release in a folder, every artifact there and unchanged. Raises `ConfigError` or `RejectedError`."""
    path = folder / DOCUMENT
    try:
        release = Release.model_validate_json(path.read_bytes())
        for digest, artifact in release.artifacts.items():
            blob = folder / BLOBS / digest.removeprefix("sha256:")
            if digest_of(blob.read_bytes()) != digest:
                raise RejectedError(f"{blob}: not the bytes of {artifact.name} that the release was made from")
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {error.strerror}: is {folder} a release folder?") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RejectedError(f"{path}: {where or 'document'}: {first['msg']}") from None
    return release


def push_release(folder: Path, sites: list[str] | None, client: HubClient) -> dict[str, Any]:
    """Upload what the hub lacks, create the release where it is new, and push it to these sites (None: to all)."""
    release = read_release(folder)
    if (folder / TRUST).is_dir():
        hand_over_newer({path.name: path.read_bytes() for path in (folder / TRUST).iterdir()}, client)
    created, uploaded = publish_release(release, lambda digest: folder / BLOBS / digest.removeprefix("sha256:"), client)
    wish = {"all": True} if sites is None else {"sites": sites}
    answer = client.request("POST", f"/api/v1/releases/{release.release}/push", json=wish)
    return {
        "release": release.release,
        "created": created,
        "uploaded": uploaded,
        "sites": {each["site"]: each["generation"] for each in answer["pushed"]},
    }


def publish_release(
    release: Release, body_of: Callable[[str], Path | bytes], client: HubClient
) -> tuple[bool, list[str]]:
    """Make the release known to the hub, with the artifacts it lacks; nobody is told to run it.

    Returns whether it was new, and what was uploaded. Raises `RejectedError`, before anything is uploaded, where the
    hub has another of its number.
    """
    if _holds(release, client):
        return False, []
    uploaded = [digest for digest in release.artifacts if upload(digest, body_of(digest), client)]
    return _create(release, client), uploaded


def _holds(release: Release, client: HubClient) -> bool:
    """Whether the hub has this very release. Raises `RejectedError` where it has another of its number."""
    try:
        answer = client.request("GET", f"/api/v1/releases/{release.release}")
    except HubRefusal as refusal:
        if refusal.status != 404:
            raise
        return False
    try:
        same = Release.model_validate(answer) == release
    except ValidationError:  # it says what only a newer kit understands
        same = False
    if not same:
        raise RejectedError(
            f"the hub's release {release.release} is another one: make yours again with a higher number"
        )
    return True


def _create(release: Release, client: HubClient) -> bool:
    try:
        client.request("POST", "/api/v1/releases", json=release.model_dump(mode="json"))
    except HubRefusal as refusal:
        # Somebody else may have made it known in the meantime.
        if refusal.status != 409 or not _holds(release, client):
            raise
        return False
    return True


@app.command()
def create(
    file: Annotated[Path, typer.Argument(help="YAML with `release` and `agents`.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write.", show_default=False)],
    trust: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The operator's folder: sign what of the release is not signed yet."),
    ] = None,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    again: AgainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check every bundle and policy of a release, sign it, and write it as a folder that can be pushed.

    Example: edge-agent release create release-2.yaml --trust /secure/trust --out release-2
    """
    release, blobs = make_release(file)
    metadata, new = None, list[str]()
    if trust is not None:
        repository = open_repository(trust, keys or ())
        new = sign_release(release, blobs, repository, passphrases(passphrase_file, sys.stdin.isatty()), again)
        metadata = repository.files()
    write_release(release, blobs, out, metadata)
    if as_json:
        emit_json(
            {
                "release": release.release,
                "agents": [agent.name for agent in release.agents],
                "artifacts": {digest: artifact.name for digest, artifact in release.artifacts.items()},
                "bytes": sum(len(blob) for blob in blobs.values()),
                "path": str(out),
                "signed": trust is not None,
                "newly_signed": new,
            }
        )
        return
    size_kb = sum(len(blob) for blob in blobs.values()) / 1000
    agents = ", ".join(agent.name for agent in release.agents)
    data.print(f"{out}: release {release.release} ({agents}), {len(blobs)} artifacts, {size_kb:.0f} kB", markup=False)
    if trust is None:
        talk.print("not signed: sites refuse it, unless all of it was signed before; sign it with --trust DIR")


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A release folder.", show_default=False)],
    to: Annotated[list[str] | None, typer.Option(metavar="SITE", help="Push to this site; repeat.")] = None,
    everywhere: Annotated[bool, typer.Option("--all", help="Push to every registered site.")] = False,
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Upload what the hub lacks of a release, and make it what these sites should run.

    Example: edge-agent release push release-2 --to plant-01 --to store-01 --hub-dir /var/lib/edge-hub
    """
    if bool(to) is everywhere:
        raise ConfigError("push to whom? name sites with --to SITE, or all with --all")
    done = push_release(folder, None if everywhere else to, connect(hub, token_file, hub_dir))
    if as_json:
        emit_json(done)
        return
    if not done["sites"]:
        talk.print("no site is registered: nobody was told")
    for site, generation in done["sites"].items():
        data.print(f"{site}: release {done['release']}, generation {generation}", markup=False)
