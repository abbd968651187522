"""Kits as an operator orders them, one or hundreds: what is checked first, what the hub is asked, what is written."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from edge_cli.hub_client import HubClient
from edge_cli.kit_hub import WithPassword, WithToken, check_enrol, enrols, known_sites, register, root_at
from edge_cli.kit_pod import PodWish
from edge_cli.release import make_release, publish_release
from edge_k3s.kit import Form, as_folder, check_once, write_kit, write_kits
from edge_k3s.names import check_image, check_labels, check_site
from edge_k3s.network import check_networks
from edge_k3s.sealing import Sealer, role_keys, targets_keys
from edge_k3s.spec import Account, Enrolment, KitAgent, KitSpec, KitSummary, Machine
from edge_k3s.table import Row, check_keys
from edge_k3s.tree import Tree, check_out
from edge_models.digests import Digest
from edge_models.errors import ConfigError, RejectedError
from edge_sync.mqtt import Broker
from edge_sync.release import Release
from edge_sync.topics import site_id
from edge_sync.trust.client import check_root

DEFAULT_IMAGE = f"edge-agent-kit:{version('edge-agent-kit')}"
"""What the pod runs unless the operator names an image."""

Artifacts = Mapping[Digest, bytes]


@dataclass(frozen=True, slots=True)
class Wish:
    """What all kits of an order have in common; everything but sites and secrets."""

    release_file: Path | None = None
    """None: sites wait for the release that their hub sends."""
    image: str = DEFAULT_IMAGE
    broker: str | None = None
    """The hub's broker as the sites reach it; None: as the hub says."""
    enrol: str | None = None
    """The hub's place for enrolment as the sites reach it; None: as the hub says."""
    local_broker: str | None = None
    """The broker of a site's sensors and machines; None: the hub's."""
    hub_networks: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()
    """More tools than the release's agents are granted today, for releases to come."""
    api_port: int = 8080
    replace: bool = False
    """Whether a site that the hub knows gets new secrets."""
    join_days: int = 7
    label_keys: tuple[str, ...] = ()
    """Label keys that are new and meant."""
    machine: Machine = field(default_factory=Machine)
    pod: PodWish = field(default_factory=PodWish)
    root_file: Path | None = None
    """The root of trust; None: the signer's, or as the hub says."""
    form: Form = as_folder


Signing = Callable[[], tuple[Sealer, bytes] | None]
"""Who signs, and the newest root of theirs; asked only once all else is right, since it may ask for a passphrase."""


def provision_kit(wish: Wish, row: Row, hub: HubClient, out: Path, signing: Signing) -> KitSummary:
    """Check what is wished, make site and release known to the hub, and write the kit into the new folder `out`.

    Whatever can be checked is checked before the hub is asked, and the hub is asked before anything there changes.
    Raises `ConfigError` or `RejectedError` for what is wrong, `RetryableError` when the hub is away; in each case no
    kit is there.
    """
    order = _checked(wish, [row], hub, out, signing)
    answers = _registered(order, hub)
    with _telling_of(order):
        (spec,) = _specs(order, answers)
        return write_kit(spec, out, order.sealer, wish.form)


def provision_kits(
    wish: Wish,
    rows: Sequence[Row],
    hub: HubClient,
    out: Path,
    signing: Signing,
    done: Callable[[str], None],
    extra: Callable[[Sequence[KitSummary]], Tree],
) -> list[KitSummary]:
    """The same for many: ``out/SITE`` a site, all or none. `done` is told of each, `extra` adds files of its own."""
    order = _checked(wish, rows, hub, out, signing)
    answers = _registered(order, hub)
    with _telling_of(order):
        return write_kits(_specs(order, answers), out, order.sealer, wish.form, done, extra)


@dataclass(frozen=True, slots=True)
class _Order:
    """A wish that was checked: all that is left to know is what the hub answers about its sites."""

    wish: Wish
    rows: Sequence[Row]
    release: Release
    blobs: Artifacts
    root: bytes
    sealer: Sealer | None


def _checked(wish: Wish, rows: Sequence[Row], hub: HubClient, out: Path, signing: Signing) -> _Order:
    _check(wish, rows, out)
    release, blobs = _release(wish)
    known = known_sites(hub)
    used = {key for labels in known.values() for key in labels}
    if used or wish.label_keys:  # the first sites of a fleet say which keys there are
        used |= {key for agent in release.agents for key in agent.where}
        check_keys(sorted({key for row in rows for key in row.labels}), used.union(wish.label_keys))
    if not wish.replace and (taken := [row.site for row in rows if row.site in known]):
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise RejectedError(
            f"{taken[0]} is provisioned already{more}: --replace gives it new passwords, and its old kit then ends"
        )
    if wish.replace and not any(row.site in known for row in rows):  # of a table some may be new: it was cut short
        raise RejectedError(
            f"the hub knows no site {rows[0].site!r} to replace: `edge-agent fleet ls` has the names; "
            "without --replace it becomes a new one"
        )
    # Who replaces a site's machine means the same site: without its labels no agent of its would run.
    rows = [row if row.labels else Row(row.site, known.get(row.site, {})) for row in rows]
    root, sealer = _trust(wish, hub, signing)
    return _Order(wish, rows, release, blobs, root, sealer)


def _trust(wish: Wish, hub: HubClient, signing: Signing) -> tuple[bytes, Sealer | None]:
    """The root of trust for the kits, and who signs them. Raises `ConfigError`."""
    given = None
    if wish.root_file is not None:
        try:
            given = wish.root_file.read_bytes()
        except OSError as error:
            raise ConfigError(f"--root {wish.root_file}: {error.strerror}") from None
        check_root(given)
    found = signing()
    if found is None:
        return given or root_at(hub), None
    sealer, own = found
    _check_hub(own, hub)
    if given is not None and sealer.public not in targets_keys(given):
        raise ConfigError(f"--root {wish.root_file} does not name the key that signs: leave --root out")
    return given or own, sealer


def _check_hub(own: bytes, hub: HubClient) -> None:
    """A site with another hub's root would join, and then believe nothing. Raises `RejectedError`."""
    online = hub.request("GET", "/api/v1/trust").get("online_key")
    if online not in role_keys(own, "snapshot"):
        raise RejectedError(
            "the operator's folder is another hub's (its root names another online key): is --hub the right one, and "
            f"--trust? If this hub's keys were made anew: `edge-agent trust rotate DIR online --public-key {online}`"
        )


def _registered(order: _Order, hub: HubClient) -> Sequence[WithPassword | WithToken]:
    """Make release and sites known to the hub; what it answers about each."""
    if order.wish.release_file is not None:
        publish_release(order.release, lambda digest: order.blobs[Digest(digest)], hub)
    return register(order.rows, hub, order.wish.replace, order.wish.join_days if enrols(hub) else None)


@contextmanager
def _telling_of(order: _Order) -> Iterator[None]:
    """Who cannot go on from here is told that the hub knows the sites by now."""
    try:
        yield
    except (ConfigError, RejectedError) as error:
        sites = order.rows[0].site if len(order.rows) == 1 else f"all {len(order.rows)} sites"
        told = f"{error}; the hub has registered {sites}: use --replace the next time"
        raise type(error)(told) from None


def _specs(order: _Order, answers: Sequence[WithPassword | WithToken]) -> list[KitSpec]:
    made_us = time.time_ns() // 1000
    return [_spec(order, row, answer, made_us) for row, answer in zip(order.rows, answers, strict=True)]


def _spec(order: _Order, row: Row, answer: WithPassword | WithToken, made_us: int) -> KitSpec:
    wish, release = order.wish, order.release.for_site(row.labels)
    url = wish.broker or answer.broker_url
    Broker(url, client_id=row.site).require_tls()
    here = release.agents_for(row.labels)
    agents = tuple(
        KitAgent(
            name=agent.name,
            bundle=order.blobs[Digest(agent.bundle)],
            policy=order.blobs[Digest(agent.policy)],
            settings=agent.model_dump(mode="json", exclude={"name", "bundle", "policy"}, exclude_unset=True),
        )
        for agent in here
    )
    granted = {tool for agent in here for tool in agent.grants}
    enrolment, username, password = _identity(answer, wish.enrol)
    local = _account(wish.local_broker or url, answer.local_username, answer.local_password)
    return KitSpec(
        site=row.site,
        labels=row.labels,
        hub=_account(url, username, password),
        local=local,
        root=order.root,
        api_token=secrets.token_urlsafe(32),
        release=release.release,
        agents=agents,
        grants=tuple(sorted(granted.union(wish.grants))),
        image=wish.image,
        api_port=wish.api_port,
        hub_networks=wish.hub_networks,
        enrol=enrolment,
        machine=wish.machine,
        pod=wish.pod.options(local),
        made_us=made_us,
    )


def _identity(answer: WithPassword | WithToken, url: str | None) -> tuple[Enrolment | None, str, str | None]:
    if isinstance(answer, WithToken):
        return answer.enrolment(url), answer.site, None
    return None, answer.username, answer.password


def _check(wish: Wish, rows: Sequence[Row], out: Path) -> None:
    for row in rows:
        check_site(row.site)
        try:
            site_id(row.site)
        except RejectedError as error:
            raise ConfigError(str(error)) from None
        check_labels(row.labels)
    check_once([row.site for row in rows])
    check_image(wish.image)
    check_networks(wish.hub_networks)
    wish.pod.check(wish.local_broker)
    if wish.pod.sensors_image is not None:
        check_image(wish.pod.sensors_image)
        check_networks(wish.pod.sensor_networks)
    check_out(out)
    site = rows[0].site
    if wish.broker is not None:
        Broker(wish.broker, client_id=site).require_tls()
    if wish.enrol is not None:
        check_enrol(wish.enrol)
    if wish.local_broker is not None:
        _check_local(Broker(wish.local_broker, client_id=site))


def _check_local(broker: Broker) -> None:
    """Of a site's sensors: inside its walls it may speak without TLS. Raises `ConfigError`."""
    try:
        broker.address()
    except ConfigError as error:
        right = f"{broker.url!r}: write mqtt://HOST:1883, or mqtts://HOST:8883 where it has TLS"
        raise ConfigError(f"--local-broker {error if '@' in broker.url else right}") from None


def _release(wish: Wish) -> tuple[Release, Artifacts]:
    if wish.release_file is None:
        return Release.of(0, [], {}), {}
    return make_release(wish.release_file)


def _account(url: str, username: str, password: str | None) -> Account:
    host, port, _ = Broker(url, client_id=username).address()
    return Account(url, host, port, username, password)
