"""Join tokens in the database: made, looked up, spent, void. All in the caller's transaction; no secret is kept."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, select, update

from edge_hub.database.schema import join_tokens
from edge_models.errors import RejectedError

MAX_DAYS, DEFAULT_DAYS = 90, 7
MAX_GROUP = 10_000
"""Sites that may join with one token."""

_DAY_US = 86_400_000_000


def make(
    db: Connection, now_us: int, name: str, days: int, sites: int = 1, labels: Mapping[str, str] | None = None
) -> str:
    """The secret of a new token of this name, told this once; an older one of the name is gone."""
    if not 1 <= days <= MAX_DAYS:
        raise RejectedError(f"a join token is good for 1 to {MAX_DAYS} days")
    if not 1 <= sites <= MAX_GROUP:
        raise RejectedError(f"a join token is for 1 to {MAX_GROUP} sites")
    secret = secrets.token_urlsafe(32)
    row = {"name": name, "secret": digest(secret), "sites": sites, "used": 0, "labels": dict(labels or {})}
    db.execute(delete(join_tokens).where(join_tokens.c.name == name))
    db.execute(join_tokens.insert().values(row | {"created_us": now_us, "expires_us": now_us + days * _DAY_US}))
    return secret


def find(db: Connection, name: str, secret: str) -> Any | None:
    """The token's row, whatever has become of it; None where the secret is not that of the name's newest."""
    row = db.execute(select(join_tokens).where(join_tokens.c.name == name).with_for_update()).first()
    return row if row is not None and hmac.compare_digest(row.secret, digest(secret)) else None


def digest(secret: str) -> str:
    """What is kept of a secret. It is 32 random bytes: nothing slow is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def spend(db: Connection, name: str) -> None:
    """One more site joined with it."""
    db.execute(update(join_tokens).where(join_tokens.c.name == name).values(used=join_tokens.c.used + 1))


def void(db: Connection, now_us: int, name: str) -> bool:
    """Nobody joins with it from now on. False where there is none that anybody could."""
    live = (join_tokens.c.name == name) & join_tokens.c.voided_us.is_(None)
    return db.execute(update(join_tokens).where(live).values(voided_us=now_us)).rowcount > 0


def void_all(db: Connection, now_us: int) -> int:
    """None is good any more; how many were not void yet."""
    return db.execute(update(join_tokens).where(join_tokens.c.voided_us.is_(None)).values(voided_us=now_us)).rowcount


def state(row: Any, now_us: int) -> str:
    """`open`, `spent`, `void` or `expired`."""
    if row.voided_us is not None:
        return "void"
    if row.used >= row.sites:
        return "spent"
    return "expired" if now_us >= row.expires_us else "open"


def listed(db: Connection, now_us: int) -> list[dict[str, Any]]:
    """Every token, without its secret."""
    rows = db.execute(select(join_tokens).order_by(join_tokens.c.name))
    names = ("sites", "used", "labels", "created_us", "expires_us")
    return [
        {"id": row.name, "state": state(row, now_us)} | {name: getattr(row, name) for name in names} for row in rows
    ]
