"""A refusal of enrolment: one line that says what to do, with HTTP's status."""

import math
from datetime import UTC, datetime

from edge_models.errors import RejectedError


class RefusedError(RejectedError):
    """`status` is HTTP's. `proven`: whoever asked had shown a true secret or certificate, so it is worth a look."""

    def __init__(self, status: int, reason: str, *, proven: bool, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.status, self.proven, self.retry_after_s = status, proven, retry_after_s


def anew(site: str) -> str:
    """What an operator does for a site that can't go on as it is."""
    return f"make it a new kit with edge-agent node provision {site} --replace"


def unknown_token() -> RefusedError:
    """Neither whether there is such a name nor what its secret is becomes known."""
    return RefusedError(401, "no such join token: ask the operator for a new one", proven=False)


def dead_token(state: str, expires_us: int) -> RefusedError:
    """A token that was good: spent, void or expired."""
    day = datetime.fromtimestamp(expires_us // 1_000_000, UTC).date()
    what = {"spent": "was used already", "void": "was taken back", "expired": f"ended on {day}"}[state]
    return RefusedError(401, f"this join token {what}: ask the operator for a new one", proven=True)


def revoked(site: str) -> RefusedError:
    """The site is out until its operator lets it in again."""
    return RefusedError(403, f"site {site} was revoked: {anew(site)}", proven=True)


def too_often(wait_s: float, *, proven: bool) -> RefusedError:
    """Nothing is wrong but how often it is asked."""
    wait_s = max(1.0, math.ceil(wait_s))
    return RefusedError(429, f"asked too often: ask again in {wait_s:.0f} s", proven=proven, retry_after_s=wait_s)
