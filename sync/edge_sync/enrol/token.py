"""A join token, as text: which hub it is for, for whom it is, and a secret. ``EK1<root's sha256>::<name>:<secret>``."""

import base64
import re
from dataclasses import dataclass, field

from edge_models.errors import RejectedError
from edge_sync.topics import RESERVED, SITE_PATTERN

_FORM = re.compile(r"EK1(?P<pin>[0-9a-f]{64})::(?P<name>[a-z0-9_-]{1,80}):(?P<secret>[A-Za-z0-9_-]{20,100})")
_GROUP = "_group-"
"""No site's name begins so."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What lets a site join once, or as many sites of a group as the hub noted."""

    pin: str
    """sha256 of the DER of the root of the hub's certificates, 64 hex digits."""
    name: str
    """A site's id, or a group's name as `group_name` spells it."""
    secret: str = field(repr=False)

    @property
    def group(self) -> str | None:
        """The group that it is for; None where it is for one site."""
        return group_of(self.name)

    def text(self) -> str:
        """The opposite of `parse_token`."""
        return f"EK1{self.pin}::{self.name}:{self.secret}"


def parse_token(text: str) -> JoinToken:
    """The token that this text is; space around it does not count. Raises `RejectedError`, which shows none of it."""
    found = _FORM.fullmatch(text.strip())
    if found is None or not is_holder(found["name"]):
        raise RejectedError("this is no join token: it is one line, EK1…::NAME:SECRET, as the hub printed it")
    return JoinToken(found["pin"], found["name"], found["secret"])


def group_name(group: str) -> str:
    """A group, as a token names it. Raises `RejectedError` for what is no group's name."""
    if not re.fullmatch(SITE_PATTERN, group):
        raise RejectedError(
            f"group {group!r}: use 1 to 63 of a-z, 0-9 and -, as in north, not beginning or ending in -"
        )
    return _GROUP + group


def group_of(name: str) -> str | None:
    """The group of such a name; None where it is a site's."""
    return name.removeprefix(_GROUP) if name.startswith(_GROUP) else None


def is_holder(name: str) -> bool:
    """Whether a token can be for this name."""
    site = re.fullmatch(SITE_PATTERN, name) is not None and name not in RESERVED
    return site or (name.startswith(_GROUP) and re.fullmatch(SITE_PATTERN, name.removeprefix(_GROUP)) is not None)


def basic(token: JoinToken) -> str:
    """The HTTP header `Authorization` that shows the token."""
    return "Basic " + base64.b64encode(f"{token.name}:{token.secret}".encode()).decode()


def read_basic(header: str) -> tuple[str, str] | None:
    """Name and secret of such a header; None where it is none."""
    kind, _, shown = header.strip().partition(" ")
    try:
        name, colon, secret = base64.b64decode(shown.strip(), validate=True).decode().partition(":")
    except ValueError:
        return None
    return (name, secret) if kind.lower() == "basic" and colon and name and secret else None
