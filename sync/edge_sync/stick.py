"""What a stick carries to sites without a network: signed documents and the bytes they name, in a folder.

    edge-update.json    what is on it, for people and for the command; nothing is believed of it
    trust.bin           the trust metadata, packed, with a timestamp that ends later than the broker's
    desired/SITE.json   what each site should run, signed by the hub's director
    blobs/HEX           artifacts, by sha256

Nothing on it is secret, and nothing is taken from it unverified.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_models.errors import ConfigError, RejectedError
from edge_sync.release import MAX_ARTIFACT_BYTES
from edge_sync.signing import MAX_ENVELOPE_BYTES
from edge_sync.topics import SiteField
from edge_sync.trust.paths import MAX_PACKED_BYTES

INDEX = "edge-update.json"
_MAX_INDEX_BYTES = 4 * 1024 * 1024
_HEX = re.compile(r"[0-9a-f]{64}")


class Index(BaseModel):
    """`edge-update.json`."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    format: Literal[1] = 1
    made_us: Annotated[int, Field(ge=0, lt=2**63)]
    valid_until_us: Annotated[int, Field(ge=0, lt=2**63)]
    sites: dict[SiteField, int]
    """Site → the generation of its document."""


class Stick:
    """A stick that was made by `edge-agent update export`."""

    def __init__(self, folder: Path) -> None:
        """Raises `ConfigError` where it is none, `RejectedError` where its index is none."""
        self._folder = folder
        try:
            self.index = Index.model_validate_json(self._read(INDEX, _MAX_INDEX_BYTES))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])[:100]
            raise RejectedError(f"{folder / INDEX}: {where or 'document'}: {first['msg']}") from None

    def trust(self) -> bytes:
        """The packed trust metadata."""
        return self._read("trust.bin", MAX_PACKED_BYTES)

    def desired(self, site: str) -> bytes:
        """The site's signed document. Raises `RejectedError` where there is none for it."""
        if site not in self.index.sites:
            known = ", ".join(sorted(self.index.sites)[:5]) or "none"
            raise RejectedError(f"{self._folder} is not for {site}: it is for {known}")
        return self._read(f"desired/{site}.json", MAX_ENVELOPE_BYTES)

    def blobs(self) -> dict[str, Path]:
        """Digest → file. Raises `RejectedError` for a file that is larger than any artifact, or is no plain file."""
        found = {}
        for path in sorted((self._folder / "blobs").glob("*")):
            if not _HEX.fullmatch(path.name):
                continue
            if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_ARTIFACT_BYTES:
                raise RejectedError(f"{path}: is no artifact")
            found[f"sha256:{path.name}"] = path
        return found

    def _read(self, name: str, limit_bytes: int) -> bytes:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                data = file.read(limit_bytes + 1)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}: is {self._folder} a stick for updates?") from None
        if len(data) > limit_bytes:
            raise RejectedError(f"{path}: over {limit_bytes} bytes")
        return data
