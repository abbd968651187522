"""What becomes of a check, and how it says so."""

from dataclasses import dataclass
from typing import Literal


class Failed(Exception):
    """What was promised does not hold here."""


class Skipped(Exception):
    """This cluster can't show it, for the reason said."""


class Unfit(Exception):
    """Nothing can be checked here: no cluster, a wrong one, or one that has not what it takes. Exit code 2."""


State = Literal["ok", "FAILED", "skipped", "not reached"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of the report."""

    name: str
    state: State
    seconds: float
    detail: str
    notes: tuple[str, ...] = ()
    """What a person should know beside, a line each."""


def line(outcome: Outcome) -> str:
    """As a person reads it: state, time, what was checked, and what came out; below it the notes."""
    took = f"{outcome.seconds:7.1f} s" if outcome.state in ("ok", "FAILED") else " " * 9
    said = f": {outcome.detail}" if outcome.detail else ""
    notes = "".join(f"\n{'':<23}{note}" for note in outcome.notes)
    return f"{outcome.state:<11} {took}  {outcome.name}{said}{notes}"


def total(outcomes: list[Outcome]) -> str:
    """The last line: how many held, and what did not."""
    counts = {state: sum(each.state == state for each in outcomes) for state in ("ok", "FAILED", "skipped")}
    missed = len(outcomes) - sum(counts.values())
    parts = [f"{counts['ok']} held", f"{counts['FAILED']} failed", f"{counts['skipped']} skipped"]
    return ", ".join([*parts, *([f"{missed} not reached"] if missed else [])])
