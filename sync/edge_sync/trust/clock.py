"""What time it is, for a site whose clock may be wrong: what is signed and expired must not look fresh in 1970.

The reference is the system's clock, or a floor below which it can't be: when this kit was built, or a time that was
signed. Who signs online may raise the floor at most to the day before the offline signatures end: it may be stolen.
"""

from datetime import UTC, datetime, timedelta

BUILT_US = round(datetime(2026, 11, 28, tzinfo=UTC).timestamp()) * 1_000_000
"""Of this source; set anew with each version of the kit."""

_MARGIN_US = round(timedelta(days=1).total_seconds()) * 1_000_000


def reference_us(now_us: int, floor_us: int) -> int:
    """UTC microseconds that are surely not before the true time was at the last signed word."""
    return max(now_us, floor_us, BUILT_US)


def raised(floor_us: int, signed_us: int, ends_us: int) -> int:
    """The floor after a signed time, where offline signatures end at `ends_us`. It never falls."""
    return max(floor_us, min(signed_us, ends_us - _MARGIN_US))


def as_datetime(us: int) -> datetime:
    """UTC; microseconds beyond what a datetime holds are its last second."""
    try:
        return datetime.fromtimestamp(us / 1e6, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.max.replace(tzinfo=UTC, microsecond=0)
