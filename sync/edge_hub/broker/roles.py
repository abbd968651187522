"""Who may say and hear what on the broker: one description, rendered for every kind of broker.

A user is one connection: brokers that can are told to take the user's name as its client id, so that nobody
can take another's; a second connection of the same user ends the first. Source: docs/design.md section 6.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from edge_models.errors import ConfigError, RejectedError
from edge_sync.topics import ROOT, site_id

Role = Literal["site", "hub", "local", "feeder", "probe", "ejected"]
"""`site`: a site's uplink. `hub`: the hub. `local`: a site's own sensors, machines and the site's ear for them.

`feeder` replays sensor messages to every site; `probe` may only connect. `ejected`: a `site` or `local` whose sessions
are being ended.
"""

Access = Literal["read", "write"]

HUB = "_hub"
"""And `_hub-1` and so on: its ingest workers, where they are processes of their own."""
FEEDER = "_feeder"
PROBE = "_probe"
_LOCAL = "_local_"


@dataclass(frozen=True, slots=True)
class Rule:
    """A user may `access` the topics that match `filter`."""

    access: Access
    filter: str


def local_user(site: str) -> str:
    """The name of the user for a site's own sensors and machines."""
    return _LOCAL + site


def check_user(name: str, role: Role) -> None:
    """Raises `ConfigError` where a user of this name can't have this role."""
    if role not in get_args(Role):
        raise ConfigError(f"broker user {name!r}: no role is named {role!r}")
    fixed = {"hub": HUB, "feeder": FEEDER, "probe": PROBE}.get(role)
    if role == "hub" and re.fullmatch(HUB + "-[1-9][0-9]?", name):
        return
    if fixed is not None and name != fixed:
        raise ConfigError(f"broker user {name!r}: the user of role {role} is named {fixed}")
    if fixed is None:
        site = name.removeprefix(_LOCAL) if role in ("local", "ejected") else name
        if role == "local" and site == name:
            raise ConfigError(f"broker user {name!r}: a user of role local is named {_LOCAL}SITE")
        try:
            site_id(site)
        except RejectedError as error:
            raise ConfigError(f"broker user {name!r}: {error}") from None


def rules(name: str, role: Role) -> tuple[Rule, ...]:
    """All that the user `name` may do; whatever is not here it may not."""
    site = name.removeprefix(_LOCAL)
    table: dict[Role, tuple[Rule, ...]] = {
        "site": (
            Rule("write", f"{ROOT}/{site}/up/#"),
            Rule("read", f"{ROOT}/{site}/down/#"),
            Rule("read", f"{ROOT}/fleet/#"),
        ),
        "hub": (
            Rule("read", f"{ROOT}/+/up/#"),
            Rule("write", f"{ROOT}/+/down/#"),
            Rule("write", f"{ROOT}/fleet/#"),
        ),
        "local": (Rule("read", f"local/{site}/#"), Rule("write", f"local/{site}/#")),
        "feeder": (Rule("read", "local/#"), Rule("write", "local/#")),
        "probe": (),
        "ejected": (Rule("write", f"{ROOT}/{site}/up/presence"),),  # its will: that it is gone
    }
    return table[role]


def allows(granted: Iterable[Rule], access: Access, topic: str) -> bool:
    """Whether these rules let `access` happen on this topic (a topic, not a filter)."""
    return any(rule.access == access and matches(rule.filter, topic) for rule in granted)


def matches(topic_filter: str, topic: str) -> bool:
    """Whether an MQTT topic filter matches a topic."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    for i, level in enumerate(wanted):
        if level == "#":
            return not (topic.startswith("$") and i == 0)
        if i >= len(given) or level not in ("+", given[i]):
            return False
    return len(wanted) == len(given)
