"""The site file: what this site is, where its hub and its machines are, and the most its agents may do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edge_agent.enrol.address import enrol_address
from edge_agent.enrol.identity import IdentityFolder
from edge_models.errors import ConfigError, RejectedError
from edge_sync.keep import ALL, MAX_DAYS, Keep, KeepRule
from edge_sync.mqtt import Broker
from edge_sync.release import AgentSpec
from edge_sync.rows import Kind
from edge_sync.topics import site_id
from edge_sync.yamlfile import load_yaml


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


IDENTITY = "identity"
"""In the site's data folder: its key and certificate, where it has them from its hub."""

_NOT_WITH_ENROL = ("username", "password_file", "ca_file", "cert_file", "key_file", "https")


class HubLink(_Section):
    """The link to the hub. Paths are relative to the site file."""

    broker: str
    """``mqtts://HOST:8883``; ``mqtt://`` only on this machine."""
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    enrol: str | None = None
    """``https://HOST:8443``: the site gets its certificate there, and keeps it in ``DATA/identity``."""
    join_token_file: Path | None = None
    """What it joins with. Another token than the one it joined with has it join anew."""
    root: Path
    """The root of trust, `1.root.json` of the operator who ran `edge-agent trust init`, given to this site by hand."""
    https: str | None = None
    """``https://HOST``: artifacts come from the hub's API, not by the broker; the password is the same."""
    reconnect_max_s: Annotated[int, Field(ge=1, le=600)] = 30
    byte_rate: Annotated[int, Field(gt=0)] | None = None
    """The most bytes of journal a second; no cap when left out."""
    update_byte_rate: Annotated[int, Field(ge=1_000, le=2**31)] | None = None
    """The most bytes of updates a second: the hub then serves this site alone, no faster. No cap when left out."""

    @field_validator("enrol")
    @classmethod
    def _is_https(cls, value: str | None) -> str | None:
        if value is not None:
            enrol_address(value)
        return value

    @model_validator(mode="after")
    def _is_one_way_to_prove_who_one_is(self) -> Self:
        if self.enrol is None:
            if self.join_token_file is not None:
                raise ValueError("join_token_file needs enrol: the URL where the token counts")
            return self
        if not self.broker.startswith("mqtts://"):
            raise ValueError("enrol gives a certificate: the broker has to be mqtts://HOST:8883")
        for name in _NOT_WITH_ENROL:
            if getattr(self, name) is not None:
                raise ValueError(f"{name} does not go with enrol: the site is who its certificate says")
        return self


class Endpoint(_Section):
    """A machine or broker at the site that agents call by name."""

    url: str
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    topic_prefix: Annotated[str, Field(pattern=r"^([^+#]+/)?$")] = ""
    """Stands before every topic agents use at this broker: agents come with a release and know no site by name."""


class ApiConfig(_Section):
    """The local API. Anything but loopback needs a token."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """0: any free port, written to ``DATA/api.port``."""
    token_file: Path | None = None


class Disk(_Section):
    """What the site's memory may take of the disk."""

    journal_mb: Annotated[int, Field(ge=16, le=1_000_000)] = 512


class Inference(_Section):
    """What models run on."""

    providers: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] = ["cpu"]
    """ONNX Runtime's execution providers, the preferred one first, as in ``[cuda, cpu]``. One that the installed
    onnxruntime does not have is refused at the start. One whose driver is missing is passed over for `cpu` where that
    is named too; where it is not, a model that needs the CPU for anything is refused."""

    @field_validator("providers")
    @classmethod
    def _is_said_once(cls, value: list[str]) -> list[str]:
        for each in value:
            if value.count(each) > 1:
                raise ValueError(f"{each!r} stands twice")
        return value


class Updates(_Section):
    """How a new release proves itself here."""

    trial_s: Annotated[float, Field(ge=10, le=86_400)] = 600.0
    """For so long it may go back to the one before."""


class KeepFor(_Section):
    """Records of a kind and agent go from this site so many days after they were made, once the hub has them."""

    kind: Kind | Literal["*"]
    agent: Annotated[str, Field(min_length=1, max_length=100)] = ALL
    days: Annotated[int, Field(ge=1, le=MAX_DAYS)]


class SiteConfig(_Section):
    """A site file."""

    site: str
    labels: dict[str, str] = {}
    data: Path = Path("data")
    """The folder for everything this site remembers; made if it is missing."""
    hub: HubLink | None = None
    """Left out: the site runs alone."""
    release: Annotated[int, Field(ge=0)] = 0
    """The number of the release that `agents` is."""
    agents: list[AgentSpec] = []
    """What runs until the hub sends a newer release."""
    endpoints: dict[str, Endpoint] = {}
    grants: list[str] = []
    """Tools any agent here may call at all, whatever a release says."""
    api: ApiConfig | None = ApiConfig()
    disk: Disk = Disk()
    inference: Inference = Inference()
    updates: Updates = Updates()
    keep: list[KeepFor] = []
    """What no line matches stays as long as there is room. The most exact line counts, kind before agent."""
    log: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("site")
    @classmethod
    def _is_site_id(cls, value: str) -> str:
        try:
            return site_id(value)
        except RejectedError as error:
            raise ValueError(str(error)) from None

    @field_validator("keep")
    @classmethod
    def _is_said_once(cls, value: list[KeepFor]) -> list[KeepFor]:
        said = [(each.kind, each.agent) for each in value]
        for each in said:
            if said.count(each) > 1:
                raise ValueError(f"two lines are for kind {each[0]!r} and agent {each[1]!r}")
        return value


@dataclass(frozen=True, slots=True)
class Site:
    """A site file that was read, and the folder its paths are relative to."""

    config: SiteConfig
    base: Path
    data: Path
    """The folder for everything this site remembers."""

    def keep(self) -> Keep:
        """How many days records are kept here."""
        return Keep(KeepRule(each.kind, each.agent, each.days) for each in self.config.keep)

    def path(self, relative: Path | None) -> Path | None:
        """A path of the site file, resolved."""
        return None if relative is None else self.base / relative

    def trust_root(self) -> bytes:
        """The root of trust that the site file names. Raises `ConfigError`."""
        path = self.path(self.config.hub.root) if self.config.hub is not None else None
        if path is None:
            raise ConfigError("this site file names no hub: add `hub:` with `broker` and `root`")
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(f"hub.root {path}: {error.strerror}") from None

    @property
    def identity(self) -> Path:
        """The folder of what the site got from its hub by enrolment; it need not be there."""
        return self.data / IDENTITY

    def broker(self) -> Broker:
        """How to reach the hub's broker. Raises `ConfigError` where the site has no hub or would speak in clear."""
        hub = self.config.hub
        if hub is None:
            raise ConfigError("this site file names no hub: add `hub:` with `broker` and `root`")
        if hub.enrol is not None:
            folder = IdentityFolder(self.identity, self.config.site)
            return Broker(
                url=hub.broker,
                client_id=self.config.site,
                ca_file=folder.ca,
                cert_file=folder.certificate,
                key_file=folder.key,
                enrolled=True,
                reconnect_max_s=hub.reconnect_max_s,
            )
        broker = Broker(
            url=hub.broker,
            client_id=self.config.site,
            username=hub.username,
            password_file=self.path(hub.password_file),
            ca_file=self.path(hub.ca_file),
            cert_file=self.path(hub.cert_file),
            key_file=self.path(hub.key_file),
            reconnect_max_s=hub.reconnect_max_s,
        )
        broker.require_tls()
        return broker

    def endpoint(self, name: str) -> Endpoint:
        """The endpoint with this name, its paths resolved. Raises `ConfigError` naming those there are."""
        found = self.config.endpoints.get(name)
        if found is None:
            known = ", ".join(sorted(self.config.endpoints)) or "none"
            raise ConfigError(f"no endpoint is named {name!r} in the site file (there are: {known})")
        return found.model_copy(
            update={"password_file": self.path(found.password_file), "ca_file": self.path(found.ca_file)}
        )


def load_site(path: Path, data: Path | None = None) -> Site:
    """Read a site file; `data` takes the place of its data folder.

    Raises `ConfigError`: file, key, and what would be right.
    """
    config, base = load_yaml(path, SiteConfig), path.resolve().parent
    return Site(config, base, base / config.data if data is None else data.resolve())
