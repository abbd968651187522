"""`edge-agent node`: kits that turn a machine into a node of a site."""

import dataclasses
import secrets
from collections.abc import Mapping
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_cli.hub_client import HubClient, HubRefusal, read_token
from edge_cli.output import data, emit_json, talk
from edge_cli.release import make_release, publish_release
from edge_k3s.kit import check_out, write_kit
from edge_k3s.names import check_image, check_labels, check_site, parse_labels
from edge_k3s.network import check_networks
from edge_k3s.spec import Account, KitAgent, KitSpec, KitSummary
from edge_models.digests import Digest
from edge_models.errors import ConfigError, RejectedError
from edge_sync.mqtt import Broker
from edge_sync.release import Release
from edge_sync.topics import site_id
from edge_sync.trust.client import check_root

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Kits that turn a machine into a node of a site.")

DEFAULT_IMAGE = f"edge-agent-kit:{version('edge-agent-kit')}"
"""What the pod runs unless the operator names an image."""


@app.callback()
def _group() -> None:
    """With a callback, typer keeps `provision` a word of its own while it is the only command."""


class Format(StrEnum):
    """The shape of a kit."""

    DIR = "dir"


class Registered(BaseModel):
    """What the hub answers about a site it registered; it tells the passwords this once."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    site: str
    broker_url: str
    username: str
    password: Annotated[str, Field(min_length=1, repr=False)]
    local_username: str
    local_password: Annotated[str, Field(min_length=1, repr=False)]


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """A kit as an operator orders it; everything but the site's passwords."""

    site: str
    labels: Mapping[str, str]
    release_file: Path
    image: str = DEFAULT_IMAGE
    broker: str | None = None
    """The hub's broker as the site reaches it; None: as the hub says."""
    local_broker: str | None = None
    """The broker of the site's sensors and machines; None: the hub's."""
    hub_networks: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()
    """More tools than the release's agents are granted today, for releases to come."""
    api_port: int = 8080
    replace: bool = False
    """Whether a site that the hub knows gets new passwords."""
    root_file: Path | None = None
    """The root of trust; None: as the hub says."""


def provision_kit(wish: Wish, hub: HubClient, out: Path) -> KitSummary:
    """Check what is wished, make site and release known to the hub, and write the kit into the new folder `out`.

    Whatever can be checked is checked before the hub is asked, and the hub is asked before anything there changes.
    Raises `ConfigError` or `RejectedError` for what is wrong, `RetryableError` when the hub is away; in each case no
    kit is there.
    """
    _check(wish, out)
    release, blobs = make_release(wish.release_file)
    if not wish.replace and _is_known(wish.site, hub):
        raise RejectedError(
            f"{wish.site} is provisioned already: --replace gives it new passwords, and its old kit then ends"
        )
    root = _root(wish, hub)
    publish_release(release, lambda digest: blobs[Digest(digest)], hub)
    answer = _register(wish, hub)
    try:
        return write_kit(_spec(wish, release.for_site(wish.labels), blobs, answer, root), out)
    except ConfigError as error:
        raise ConfigError(f"{error}; the hub has registered {wish.site}: use --replace the next time") from None


def _check(wish: Wish, out: Path) -> None:
    check_site(wish.site)
    try:
        site_id(wish.site)
    except RejectedError as error:
        raise ConfigError(str(error)) from None
    check_labels(wish.labels)
    check_image(wish.image)
    check_networks(wish.hub_networks)
    check_out(out)
    if wish.broker is not None:
        Broker(wish.broker, client_id=wish.site).require_tls()
    if wish.local_broker is not None:
        Broker(wish.local_broker, client_id=wish.site).address()


def _register(wish: Wish, hub: HubClient) -> Registered:
    body: dict[str, Any] = {"site": wish.site, "labels": dict(wish.labels)}
    if wish.replace:
        body["replace"] = True
    answer = hub.request("POST", "/api/v1/sites", json=body)
    try:
        made = Registered.model_validate(answer)
    except ValidationError as error:
        # Only the place: the error's own text would show the passwords that came.
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        wrong = f"has no usable {where!r}" if where else "is no JSON object"
        raise RejectedError(f"the hub's answer about {wish.site} {wrong}: is it a newer hub?") from None
    if made.site != wish.site:
        raise RejectedError(f"the hub's answer about {wish.site} is about another site: is it really a hub?")
    return made


def _is_known(site: str, hub: HubClient) -> bool:
    try:
        hub.request("GET", f"/api/v1/sites/{site}")
    except HubRefusal as refusal:
        if refusal.status != 404:
            raise
        return False
    return True


def _root(wish: Wish, hub: HubClient) -> bytes:
    """The root of trust for the kit. Raises `ConfigError` where there is none."""
    if wish.root_file is not None:
        try:
            root = wish.root_file.read_bytes()
        except OSError as error:
            raise ConfigError(f"--root {wish.root_file}: {error.strerror}") from None
    else:
        said = hub.request("GET", "/api/v1/trust").get("root")
        if not isinstance(said, str):
            raise ConfigError("the hub holds no trust metadata yet: run `edge-agent trust init` first")
        root = said.encode()
    check_root(root)
    return root


def _spec(wish: Wish, release: Release, blobs: Mapping[Digest, bytes], answer: Registered, root: bytes) -> KitSpec:
    url = wish.broker or answer.broker_url
    Broker(url, client_id=wish.site).require_tls()
    here = release.agents_for(wish.labels)
    agents = tuple(
        KitAgent(
            name=agent.name,
            bundle=blobs[Digest(agent.bundle)],
            policy=blobs[Digest(agent.policy)],
            settings=agent.model_dump(mode="json", exclude={"name", "bundle", "policy"}, exclude_unset=True),
        )
        for agent in here
    )
    granted = {tool for agent in here for tool in agent.grants}
    return KitSpec(
        site=wish.site,
        labels=wish.labels,
        hub=_account(url, answer.username, answer.password),
        local=_account(wish.local_broker or url, answer.local_username, answer.local_password),
        root=root,
        api_token=secrets.token_urlsafe(32),
        release=release.release,
        agents=agents,
        grants=tuple(sorted(granted.union(wish.grants))),
        image=wish.image,
        api_port=wish.api_port,
        hub_networks=wish.hub_networks,
    )


def _account(url: str, username: str, password: str) -> Account:
    host, port, _ = Broker(url, client_id=username).address()
    return Account(url, host, port, username, password)


@app.command()
def provision(
    site: Annotated[str, typer.Argument(help="The site's id, a DNS label.", show_default=False)],
    *,
    hub: Annotated[str, typer.Option(metavar="URL", envvar="EDGE_HUB", help="The hub's HTTP API.")],
    release: Annotated[
        Path, typer.Option(metavar="FILE", help="The release the site starts from: YAML with `release` and `agents`.")
    ],
    out: Annotated[Path, typer.Option(metavar="KIT", help="The folder to make; it must be new or empty.")],
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", envvar="EDGE_HUB_TOKEN_FILE", help="The operator's token.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A label of the site; repeat.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="The shape of the kit.")] = Format.DIR,  # noqa: ARG001
    replace: Annotated[bool, typer.Option("--replace", help="Give a site the hub knows new passwords.")] = False,
    image: Annotated[str, typer.Option(metavar="NAME:TAG", help="The image the pod runs.")] = DEFAULT_IMAGE,
    broker: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The hub's broker as the site reaches it; left out: as the hub says."),
    ] = None,
    local_broker: Annotated[
        str | None, typer.Option(metavar="URL", help="The broker of sensors and machines; left out: the hub's.")
    ] = None,
    hub_network: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="A network the hub's broker is in; repeat.")
    ] = None,
    grant: Annotated[
        list[str] | None, typer.Option(metavar="TOOL", help="Also let agents call this tool; repeat.")
    ] = None,
    api_port: Annotated[int, typer.Option(min=0, max=65535, help="Of the local API outside k3s; 0: any.")] = 8080,
    root: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The root of trust, from the operator's folder; left out: as the hub says."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Register a site at its hub and write its kit: site file, passwords, release and k3s manifests.

    Example: edge-agent node provision plant-07 --hub https://hub.example.com --token-file operator.token
    --label kind=factory --release release.yaml --out kits/plant-07
    """
    wish = Wish(
        site=site,
        labels=parse_labels(label or ()),
        release_file=release,
        image=image,
        broker=broker,
        local_broker=local_broker,
        hub_networks=tuple(hub_network or ()),
        grants=tuple(grant or ()),
        api_port=api_port,
        root_file=root,
        replace=replace,
    )
    summary = provision_kit(wish, HubClient(hub, read_token(token_file)), out)
    for warning in summary.warnings:
        talk.print(f"mind: {warning}", markup=False, soft_wrap=True)
    if as_json:
        emit_json({**dataclasses.asdict(summary), "path": str(summary.path)})
        return
    agents = ", ".join(summary.agents) or "no agents"
    data.print(f"{out}: {site}, release {summary.release} ({agents}), {summary.files} files", markup=False)
    talk.print(f"next: {out / 'README.txt'}", markup=False, soft_wrap=True)
