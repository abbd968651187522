"""When a site joins its hub and when it renews its certificate: pure, without a clock, a disk or a socket of its own.

This machine's clock only says when to ask the hub. What the hub's own clock then says, told over verified TLS, decides
whether a certificate is due: a site may believe that it is 1970, or 2090, for as long as it likes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

HOUR_S, DAY_S = 3_600.0, 86_400.0

FIRST_LOOK_S = 30.0
"""The most a site waits after its start before it looks at its certificate: after a power cut many start at once."""

FIRST_AGAIN_S, JOIN_AGAIN_S, RENEW_AGAIN_S = 5.0, 600.0, HOUR_S
"""After the first try in vain; the longest between two tries without a certificate that counts, and with one."""

REFUSED_AGAIN_S = HOUR_S
"""After the hub's own no: an operator may change its mind."""

DOWN_S = 600.0
"""A link that is down for so long may be so because the certificate ran out by the hub's clock."""

Act = Literal["join", "renew"]


@dataclass(frozen=True, slots=True)
class Held:
    """A site's certificate, as far as it matters when it ends."""

    begins_us: int
    renew_us: int
    """From when on it is renewed, drawn when it came, so that a fleet does not renew at once."""
    ends_us: int
    token: str
    """The print of the join token that it goes back to."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is so now. `offered`: the print of the token that lies there, None where there is none."""

    now_s: float
    """Monotonic."""
    now_us: int
    """By this machine's clock, right or not."""
    offered: str | None
    online: bool


class Schedule:
    """One site's. Ask `next`, do what it says, and tell what came of it."""

    def __init__(self, held: Held | None, now_s: float, draw: Callable[[float, float], float]) -> None:
        """`draw` gives a random number between two."""
        self.held = held
        self._draw = draw
        self._tries = 0
        self._again_s = now_s
        self._look_s = now_s + (draw(0.0, FIRST_LOOK_S) if held is not None else 0.0)
        self._refused: dict[str, float] = {}
        self._hub_us: int | None = None
        self._told_s = now_s
        self._down_s: float | None = now_s

    def next(self, seen: Seen) -> Act | None:
        """What to do now, if anything."""
        if seen.online:
            self._down_s = None
        elif self._down_s is None:
            self._down_s = seen.now_s
        if seen.now_s < self._again_s:
            return None
        if seen.offered is not None and self._is_new(seen.offered, seen.now_s):
            return "join"
        if self.held is None or seen.now_s < self._look_s:
            return None
        down = self._down_s is not None and seen.now_s - self._down_s >= DOWN_S
        return "renew" if down or self._is_due(self.held, self._time_us(seen)) else None

    def got(self, held: Held, now_s: float) -> None:
        """There is a new certificate."""
        self.held, self._tries, self._again_s = held, 0, now_s
        # Whatever the clocks say: a certificate a day is enough, were both of them wrong.
        self._look_s = now_s + DAY_S

    def not_due(self, hub_us: int, now_s: float) -> None:
        """The hub's clock says so."""
        self._hub_us, self._told_s, self._tries = hub_us, now_s, 0
        self._look_s = now_s + HOUR_S

    def in_vain(self, seen: Seen, retry_after_s: float = 0.0) -> None:
        """The hub can't be reached, or is busy, or what answers is not the hub."""
        most = JOIN_AGAIN_S if self.held is None or self._time_us(seen) >= self.held.ends_us else RENEW_AGAIN_S
        wait_s = min(FIRST_AGAIN_S * 2 ** min(self._tries, 16), most)
        self._tries += 1
        self._again_s = seen.now_s + max(retry_after_s, self._draw(wait_s / 2, wait_s))

    def refused(self, act: Act, seen: Seen) -> None:
        """The hub says no. A token that it refuses is no reason to give up a certificate that counts."""
        if act == "renew" or seen.offered is None:
            self._look_s = seen.now_s + REFUSED_AGAIN_S
        else:
            wait_s = self._draw(REFUSED_AGAIN_S, 2 * REFUSED_AGAIN_S)
            self._refused[seen.offered] = math.inf if self.held is not None else seen.now_s + wait_s

    def _is_new(self, offered: str, now_s: float) -> bool:
        if self.held is not None and self.held.token == offered:
            return False
        return now_s >= self._refused.get(offered, -math.inf)

    def _time_us(self, seen: Seen) -> int:
        if self._hub_us is None:
            return seen.now_us
        return self._hub_us + round((seen.now_s - self._told_s) * 1e6)

    def _is_due(self, held: Held, time_us: int) -> bool:
        """Also where the time is before the certificate was made: such a clock can't say when it ends."""
        return time_us < held.begins_us or time_us >= held.renew_us
