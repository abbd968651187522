"""What a hub is asked while kits are made: who is known there, the root of trust, and a place for new sites."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_agent.enrol.address import enrol_address
from edge_cli.hub_client import HubClient, HubRefusal
from edge_k3s.spec import Enrolment
from edge_k3s.table import Row
from edge_models.errors import ConfigError, KitError, RejectedError
from edge_sync.enrol.token import parse_token
from edge_sync.trust.client import check_root

MAX_BULK = 1_000
"""Sites in one request. Source: the hub's API, POST /api/v1/sites/bulk."""

_BULK_TIMEOUT_S = 300.0

_Secret = Annotated[str, Field(min_length=1, repr=False)]


class _Registered(BaseModel):
    """What the hub answers about a site it registered; it tells the secrets this once."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    site: str
    broker_url: str
    local_username: str
    local_password: _Secret


class WithPassword(_Registered):
    """The site is known to the hub's broker by a password."""

    username: str
    password: _Secret


class WithToken(_Registered):
    """The site gets a certificate, with a token that counts once."""

    join_token: _Secret
    join_expires_us: int
    enrol_url: str
    ca: str

    def enrolment(self, url: str | None = None) -> Enrolment:
        """What the kit says about it; `url`: another address of the same place, as the site reaches it.

        Raises `RejectedError` where token, CA and site do not belong together.
        """
        from edge_sync.enrol.certificate import fingerprint, load_pem  # noqa: PLC0415 - brings cryptography along

        token = parse_token(self.join_token)
        if token.name != self.site:
            raise RejectedError(f"the hub's join token for {self.site} is for {token.name}: is it really a hub?")
        if token.pin not in [fingerprint(each) for each in load_pem(self.ca.encode())]:
            raise RejectedError(
                f"the hub's CA is not the one that its join token for {self.site} names: register again"
            )
        host, port = check_enrol(url or self.enrol_url)
        return Enrolment(url or self.enrol_url, host, port, self.join_token, self.join_expires_us)


_Kind = TypeVar("_Kind", bound=_Registered)


def check_enrol(url: str) -> tuple[str, int]:
    """Host and port of a place for enrolment. Raises `ConfigError` where it is none."""
    try:
        return enrol_address(url)
    except ValueError as error:
        raise ConfigError(f"enrolment {url!r}: {error}") from None


def known_sites(hub: HubClient) -> dict[str, Mapping[str, str]]:
    """Every site the hub knows, with its labels."""
    listed = hub.request("GET", "/api/v1/sites")
    try:
        return {str(each["site"]): dict(each["labels"] or {}) for each in listed["sites"]}
    except (KeyError, TypeError, ValueError):
        raise RejectedError("the hub's list of sites has none: is it really a hub?") from None


def enrols(hub: HubClient) -> bool:
    """Whether sites can get certificates there; a hub that is older, or was not told to, says no."""
    try:
        hub.request("GET", "/api/v1/join-tokens")
    except HubRefusal:
        return False
    return True


def root_at(hub: HubClient) -> bytes:
    """The root of trust that the hub holds. Raises `ConfigError` where it holds none."""
    said = hub.request("GET", "/api/v1/trust").get("root")
    if not isinstance(said, str):
        raise ConfigError("the hub holds no trust metadata yet: run `edge-agent trust init` first")
    check_root(said.encode())
    return said.encode()


def register(
    rows: Sequence[Row], hub: HubClient, replace: bool, join_days: int | None
) -> list[WithPassword | WithToken]:
    """Make these sites known to the hub, which did not know them unless `replace`; in their order.

    `join_days`: how long their join tokens are good; None: they get passwords, one request a site. Raises
    `RejectedError` where the hub's answer makes no kit.
    """
    made: list[WithPassword | WithToken] = []
    at_once = 1 if join_days is None else MAX_BULK
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        try:
            if join_days is None:
                made += [_with_password(row, hub, replace) for row in part]
            else:
                made += _with_tokens(part, hub, replace, join_days)
        except KitError as error:
            if not made:
                raise
            known = f"the first {len(made)} of {len(rows)} sites"
            raise RejectedError(f"{error}; the hub has registered {known}: use --replace the next time") from None
    return made


def _with_password(row: Row, hub: HubClient, replace: bool) -> WithPassword:
    body: dict[str, Any] = {"site": row.site, "labels": dict(row.labels)}
    if replace:
        body["replace"] = True
    answer = hub.request("POST", "/api/v1/sites", json=body)
    return _read(WithPassword, answer, row.site)


def _with_tokens(rows: Sequence[Row], hub: HubClient, replace: bool, join_days: int) -> list[WithToken]:
    sites = [{"site": row.site, "labels": dict(row.labels)} for row in rows]
    if len(sites) == 1:
        body: dict[str, Any] = {**sites[0], "replace": replace, "join": True, "join_days": join_days}
        return [_read(WithToken, hub.request("POST", "/api/v1/sites", json=body), rows[0].site)]
    body = {"sites": sites, "replace": replace, "join_days": join_days}
    answer = hub.request("POST", "/api/v1/sites/bulk", json=body, timeout_s=_BULK_TIMEOUT_S)
    answers = answer.get("sites") if isinstance(answer, dict) else None
    if not isinstance(answers, list) or len(answers) != len(rows):
        raise RejectedError(f"the hub's answer about {len(rows)} sites is not about as many: is it a newer hub?")
    return [_read(WithToken, each, row.site) for each, row in zip(answers, rows, strict=True)]


def _read(kind: type[_Kind], answer: Any, site: str) -> _Kind:
    try:
        made = kind.model_validate(answer)
    except ValidationError as error:
        # Only the place: the error's own text would show the secrets that came.
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        wrong = f"has no usable {where!r}" if where else "is no JSON object"
        raise RejectedError(f"the hub's answer about {site} {wrong}: is it a newer hub?") from None
    if made.site != site:
        raise RejectedError(f"the hub's answer about {site} is about another site: is it really a hub?")
    return made
