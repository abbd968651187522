"""What an operator's folder is worth today: which version of each role counts, until when, and where its keys are."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from edge_sync.trust.draft import ROLES, Draft
from edge_sync.trust.folder import State
from edge_sync.trust.keys import KeyRing
from edge_sync.trust.paths import OFFLINE


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One key of a role."""

    keyid: str
    place: str
    """The signer's URI; `hub` for what the hub has, `unknown` where signers.json does not say."""
    here: bool | None
    """Whether its file lies here or on the media given; None where it is no file."""


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """One role; those of the hub's keys (online, director) have no version and no end here."""

    role: str
    version: int | None
    expires: datetime | None
    days_left: int | None
    """Whole ones; below 0 once it has ended."""
    threshold: int
    keys: tuple[KeyStatus, ...]
    targets: int
    """How many paths it names: directors for `targets`, artifacts for the others."""


def standing(state: State, ring: KeyRing, now: datetime) -> list[RoleStatus]:
    """Every role, in the order of trust, and then the hub's keys."""
    draft = Draft(state, ring, now)
    return [_of(role, state, draft, ring, now) for role in ROLES]


def _of(role: str, state: State, draft: Draft, ring: KeyRing, now: datetime) -> RoleStatus:
    if role not in OFFLINE:
        keys = tuple(KeyStatus(keyid, "hub", None) for keyid in draft.keyids(role))
        return RoleStatus(role, None, None, None, draft.threshold(role), keys, 0)
    ends = draft.expires(role)
    return RoleStatus(
        role=role,
        version=state.versions[role],
        expires=ends,
        days_left=(ends - now) // timedelta(days=1),
        threshold=draft.threshold(role),
        keys=tuple(_key(keyid, state.signers.get(keyid), ring) for keyid in draft.keyids(role)),
        targets=0 if role == "root" else len(state.targets(role).signed.targets),
    )


def _key(keyid: str, uri: str | None, ring: KeyRing) -> KeyStatus:
    return KeyStatus(keyid, "unknown", None) if uri is None else KeyStatus(keyid, uri, ring.is_here(uri))
