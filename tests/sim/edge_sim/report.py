"""What a simulation covered, and what of a failing seed a person wants to see."""

from collections import Counter
from collections.abc import Iterable

from edge_sim.run import Outcome

MOST_LINES = 120
"""Of a timeline."""


def coverage(outcomes: Iterable[Outcome], seconds: float) -> str:
    """Faults by kind, records, gaps, virtual days."""
    faults: Counter[str] = Counter()
    seeds = written = delivered = declared = unknown = beyond = gaps = 0
    days = 0.0
    for outcome in outcomes:
        seeds += 1
        faults += outcome.counts
        verdict = outcome.verdict
        written, delivered, declared = (
            written + verdict.written,
            delivered + verdict.delivered,
            declared + verdict.declared,
        )
        unknown, beyond, gaps = unknown + verdict.unknown, beyond + verdict.beyond, gaps + verdict.gaps
        days += outcome.days
    lines = [
        f"{seeds} seeds in {seconds:.0f} s: {days:,.0f} virtual days of a fleet",
        f"records {written:,}: delivered {delivered:,}, declared lost {declared:,} in {gaps:,} gaps, "
        f"in named unknown tails {unknown:,}, gone before any word of them left the site {beyond:,}",
    ]
    struck = sorted((name.removeprefix("fault: "), n) for name, n in faults.items() if name.startswith("fault: "))
    other = sorted((name, n) for name, n in faults.items() if not name.startswith("fault: "))
    lines += ["faults: " + ", ".join(f"{name} {n:,}" for name, n in struck)]
    lines += ["and: " + ", ".join(f"{name} {n:,}" for name, n in other)]
    return "\n".join(lines)


def failure(outcome: Outcome, drawn: int) -> str:
    """A failing seed: what broke, the faults that are enough for it, and the end of its timeline."""
    broken = [f"  {violation}" for violation in outcome.verdict.violations[:12]]
    more = len(outcome.verdict.violations) - len(broken)
    left_out = len(outcome.timeline) - MOST_LINES
    return "\n".join(
        [
            f"seed {outcome.seed} breaks {len(outcome.verdict.violations)} promises:",
            *broken,
            *([f"  … and {more} more"] if more > 0 else []),
            f"faults that are enough for it ({len(outcome.faults)} of {drawn} drawn):",
            *[f"  {fault}" for fault in outcome.faults],
            "timeline:",
            *([f"  … {left_out} lines before"] if left_out > 0 else []),
            *outcome.timeline[-MOST_LINES:],
        ]
    )
