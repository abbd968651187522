"""An image, decided: what it is to hold, and what came of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge_k3s.image.target import Platform
from edge_models.digests import Digest

Role = Literal["site", "hub", "broker", "proxy"]
"""What its process is: the kit at a site; the kit as a hub, with mosquitto; mosquitto alone; HAProxy alone."""

EXTRAS: dict[Role, tuple[str, ...]] = {"site": (), "hub": ("hub", "postgres")}
"""The kit's extras by role; a role that is not here holds no Python."""

NAMES: dict[Role, str] = {
    "site": "edge-agent-kit",
    "hub": "edge-agent-kit-hub",
    "broker": "edge-agent-kit-broker",
    "proxy": "edge-agent-kit-proxy",
}
"""What the image is called where nothing else is said."""

LEVEL = 19
"""Of zstd: the strongest that any decompressor reads with its usual memory."""


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """An image as somebody orders it."""

    role: Role
    platform: Platform
    base: Path
    """A tar of a Debian root file system."""
    out: Path
    wheels: Path | None = None
    """A folder; None only for roles without Python."""
    extras: tuple[str, ...] = ()
    """More of the kit's extras than the role's own, as `images` and `text`."""
    name: str | None = None
    """As in ``registry.example.com/edge/agent``; None: the role's."""
    created_s: int | None = None
    """UTC seconds; None: a fixed time, so that nothing but content makes another image."""
    level: int = LEVEL


@dataclass(frozen=True, slots=True)
class Part:
    """One package in an image."""

    layer: str
    name: str
    version: str
    size_bytes: int
    """Of its files, with what is compiled of them."""
    compressed_bytes: int
    """Of its files compressed by themselves: together they are a little smaller."""


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """One layer of an image, lowest first."""

    name: str
    digest: Digest
    size_bytes: int
    """Compressed."""
    tar_bytes: int


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """An image that was written."""

    path: Path
    reference: str
    """NAME:TAG, for `node provision --image`."""
    role: Role
    platform: Platform
    digest: Digest
    image_id: Digest
    size_bytes: int
    layers: tuple[LayerSummary, ...]
    parts: tuple[Part, ...]
    """Empty unless asked for."""
    warnings: tuple[str, ...]
    bill: bytes = field(repr=False)
    """CycloneDX, JSON."""
