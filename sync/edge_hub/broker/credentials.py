"""The broker's users: name → role and password hash, in one file that every broker of ours is rendered from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from edge_hub.broker.passwords import PasswordHash
from edge_hub.broker.roles import Role
from edge_models.errors import ConfigError


@dataclass(frozen=True, slots=True)
class User:
    """One user of the broker."""

    role: Role
    password: PasswordHash | None
    """None: it comes by certificate only."""
    was: "User | None" = None
    """Of one that is being ejected: who it is again afterwards; None: nobody."""

    def matches(self, password: str) -> bool:
        """Whether this is its password."""
        return self.password is not None and self.password.matches(password)


def load_users(path: Path) -> dict[str, User]:
    """The users in a credentials file; none where there is no file. Raises `ConfigError` for a damaged one."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"broker credentials {path}: {error.strerror}") from None
    try:
        return {name: _user(value) for name, value in json.loads(text)["users"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"broker credentials {path}: damaged ({type(error).__name__}: {error})") from None


def dump_users(users: Mapping[str, User]) -> bytes:
    """The credentials file that holds these users."""
    listed = {name: _told(user) for name, user in sorted(users.items())}
    return json.dumps({"users": listed}, indent=1).encode() + b"\n"


def _user(value: Any) -> User:
    role = value["role"]
    if role not in get_args(Role):
        raise ValueError(f"no role is named {role!r}")
    was = value.get("was")
    password = None if value["password"] is None else PasswordHash.from_text(value["password"])
    return User(role, password, None if was is None else _user(was))


def _told(user: User) -> dict[str, Any]:
    told: dict[str, Any] = {"role": user.role, "password": user.password and user.password.as_text()}
    return told if user.was is None else told | {"was": _told(user.was)}
