"""The topics of the wire: the one place that spells them. Source: sync/SPEC.md, section Topics."""

import re
from typing import Annotated, NewType

from pydantic import Field

from edge_models.errors import RejectedError

SiteId = NewType("SiteId", str)
SITE_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
SiteField = Annotated[str, Field(pattern=SITE_PATTERN)]

RESERVED = frozenset({"hub", "fleet"})
"""Names that are no site's, since topics of the wire begin with them."""

ROOT = "edge/v1"


def site_id(text: str) -> SiteId:
    """`text` as a site id. Raises `RejectedError` naming what a site id is."""
    if not re.fullmatch(SITE_PATTERN, text):
        raise RejectedError(
            f"site id {text!r}: use 1 to 63 of a-z, 0-9 and -, as in plant-01, not beginning or ending in -"
        )
    if text in RESERVED:
        raise RejectedError(f"site id {text!r} is reserved: choose another, as in plant-01")
    return SiteId(text)


def up(site: str, what: str) -> str:
    """A topic that only the site writes."""
    return f"{ROOT}/{site}/up/{what}"


def down(site: str, what: str) -> str:
    """A topic that only the hub writes, for one site."""
    return f"{ROOT}/{site}/down/{what}"


def fleet_chunk(digest: str) -> str:
    """The topic on which a chunk reaches every site that lacks it."""
    return f"{ROOT}/fleet/chunk/{digest.removeprefix('sha256:')}"


FLEET_TRUST = f"{ROOT}/fleet/trust"
"""What may run, as all sites are told: a packed set of trust metadata, retained."""


def site_chunk(site: str, digest: str) -> str:
    """The topic on which a chunk reaches one slow or last site."""
    return f"{ROOT}/{site}/down/chunk/{digest.removeprefix('sha256:')}"


ALL_UP = f"{ROOT}/+/up/#"
"""What the hub subscribes to."""


def parse_up(topic: str) -> tuple[SiteId, str] | None:
    """Site and document name of a topic a site wrote, or None where it is no such topic."""
    parts = topic.split("/")
    if len(parts) != 5 or "/".join(parts[:2]) != ROOT or parts[3] != "up":
        return None
    if not re.fullmatch(SITE_PATTERN, parts[2]) or parts[2] in RESERVED:
        return None
    return SiteId(parts[2]), parts[4]
