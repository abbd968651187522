"""How often somebody may ask: a bucket of tokens for each key. Pure: the clock is the caller's."""

import ipaddress
from collections import OrderedDict

_MAX_KEYS = 10_000
"""Kept of one limit; of more, those that asked longest ago are forgotten."""


class RateLimit:
    """`burst` at once, and `per_s` a second in the long run, for each key."""

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst, self._per_s = burst, per_s
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> float:
        """Take one; returns 0, or for how many seconds there is none. `now` in seconds, of a clock that only grows."""
        left, since = self._left.pop(key, (float(self._burst), now))
        left = min(self._burst, left + (now - since) * self._per_s)
        may = left >= 1
        self._left[key] = (left - 1 if may else left, now)
        while len(self._left) > _MAX_KEYS:
            self._left.popitem(last=False)
        return 0.0 if may else (1 - left) / self._per_s


def address_key(address: str) -> str:
    """Whom an address counts as: an IPv4 address itself, an IPv6 address's /64, which is one house's."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if found.version == 4:
        return str(found)
    mapped = found.ipv4_mapped
    return str(mapped) if mapped is not None else str(ipaddress.ip_network((found, 64), strict=False))
