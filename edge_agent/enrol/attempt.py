"""One try to join or to renew, as the site process sees it: it knocks, and only where somebody answers starts a child.

The child (`python -m edge_agent.enrol`) brings X.509 along, some MB that the site process then never has. While the
hub is away, which may be for weeks, nothing is started at all.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.enrol.address import enrol_address
from edge_agent.enrol.schedule import Act, Held

KNOCK_S = 5.0
"""How long the hub may take to take a connection before a child is started for it."""

CHILD_S = 120.0
"""The longest a child lives; each of its steps on the network ends by itself before."""

_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, where, and what for; paths are absolute."""

    site: str
    url: str
    identity: Path
    token_file: Path | None
    journal_key: Path
    """The file of the key that signs the journal's checkpoints; it is there."""


@dataclass(frozen=True, slots=True)
class NotDueYet:
    """What there is, is good for longer by the hub's clock."""

    hub_us: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Why, in one line. `final`: the hub's own no, or a file that has to be mended."""

    reason: str
    final: bool
    retry_after_s: float = 0.0


Outcome = Held | NotDueYet | Failed


class StoppedError(Exception):
    """The site is told to stop."""


def attempt(asked: Asked, act: Act, stopping: Callable[[], bool], within_s: float = CHILD_S) -> Outcome:
    """Join or renew once. Raises `StoppedError` soon after `stopping` says so."""
    until = time.monotonic() + within_s
    try:
        socket.create_connection(enrol_address(asked.url), min(KNOCK_S, within_s)).close()
    except OSError as error:
        return Failed(f"no answer from {asked.url}: {error.strerror or error}", final=False)
    if stopping():
        raise StoppedError
    words = [act, "--site", asked.site, "--url", asked.url, "--identity", str(asked.identity)]
    if act == "join":
        words += ["--token", str(asked.token_file), "--journal-key", str(asked.journal_key)]
    child = subprocess.Popen(
        [sys.executable, "-m", "edge_agent.enrol", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        while child.poll() is None:
            if stopping():
                raise StoppedError
            if time.monotonic() > until:
                return Failed(f"{asked.url} is too slow: no certificate within {within_s:.0f} s", final=False)
            time.sleep(_LOOK_S)
    finally:
        child.kill()
        said, cried = child.communicate()
    try:
        came: dict[str, Any] = json.loads(said)
    except ValueError:
        last = (cried.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        return Failed(f"the enrolment process ended with {child.returncode}: {last[:300]}", final=False)
    if "got" in came:
        return Held(**came["got"])
    if "not_due_us" in came:
        return NotDueYet(came["not_due_us"])
    return Failed(came["failed"], came["final"], came.get("retry_after_s", 0.0))
