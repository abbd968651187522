"""`./dev sim`: run seeded fleets through every fault at once, and judge each."""

import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Annotated

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import typer

from edge_hub.broker.lifeline import die_with_parent
from edge_sim.breaks import BREAKS
from edge_sim.delivery import stocked
from edge_sim.faults import updates
from edge_sim.report import coverage, failure
from edge_sim.run import Outcome, run, shrink

AHEAD = 2
"""Seeds handed out a process before their turn."""


def main(
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to run.")] = 200,
    seed: Annotated[int | None, typer.Option(help="Run this one only.")] = None,
    first: Annotated[int, typer.Option(help="The first of the seeds.")] = 0,
    sites: Annotated[int, typer.Option(min=1, max=20, help="Sites a fleet.")] = 3,
    mistake: Annotated[
        str | None, typer.Option("--break", metavar="NAME", help="Switch on this deliberate mistake.")
    ] = None,
    only_updates: Annotated[
        bool, typer.Option("--only-updates", help="Of the seeds, those whose hub pushes releases: about every third.")
    ] = False,
    list_breaks: Annotated[bool, typer.Option("--list-breaks", help="Print the names of the mistakes.")] = False,
    timeline: Annotated[bool, typer.Option("--timeline", help="With --seed: print what happened.")] = False,
    smallest: Annotated[
        bool, typer.Option("--shrink/--no-shrink", help="Look for the fewest faults that break the promise.")
    ] = True,
) -> None:
    """Run seeded fleets and judge each; exit 1 at the first broken promise, with the timeline of its seed.

    Example: ./dev sim --seeds 2000
    """
    if list_breaks:
        print("\n".join(BREAKS))
        return
    if mistake is not None:
        if mistake not in BREAKS:
            print(f"no mistake is named {mistake!r}: --list-breaks prints them", file=sys.stderr)
            raise typer.Exit(2)
        BREAKS[mistake]()
    began = time.monotonic()
    outcomes: list[Outcome] = []
    numbers = range(first, first + seeds) if seed is None else range(seed, seed + 1)
    wanted = [number for number in numbers if updates(number) or not only_updates]
    running = _outcomes(wanted, sites, mistake)
    for outcome in running:
        outcomes.append(outcome)
        if outcome.verdict.violations:
            running.close()
            print(failure(shrink(outcome, sites) if smallest else outcome, len(outcome.faults)))
            print(
                f"again: ./dev sim --seed {outcome.seed} --sites {sites}" + (f" --break {mistake}" if mistake else "")
            )
            raise typer.Exit(1)
        if len(outcomes) % 100 == 0:
            print(f"{len(outcomes)} of {len(wanted)} seeds, none broke a promise", file=sys.stderr)
    if timeline:
        print("\n".join(outcomes[0].timeline))
    print(coverage(outcomes, time.monotonic() - began))
    if seed is not None:
        print(f"timeline sha256 {outcomes[0].digest}")


def _outcomes(wanted: Sequence[int], sites: int, mistake: str | None) -> Generator[Outcome, None, None]:
    """In any order, over all cores."""
    workers = len(os.sched_getaffinity(0))
    if len(wanted) == 1:
        yield run(wanted[0], sites)
        return
    stocked()  # once, for all processes that are forked from here
    with ProcessPoolExecutor(workers, initializer=_begin, initargs=(mistake, die_with_parent())) as pool:
        left = iter(wanted)
        pending: set[Future[Outcome]] = set()
        while True:
            while len(pending) < workers * AHEAD and (number := next(left, None)) is not None:
                pending.add(pool.submit(_quietly, number, sites))
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            try:
                for future in done:
                    yield future.result()
            except GeneratorExit:  # one broke a promise: nobody waits for the others
                pool.shutdown(wait=False, cancel_futures=True)
                for child in multiprocessing.active_children():
                    child.kill()
                raise


def _begin(mistake: str | None, die: Callable[[], None] | None) -> None:
    """In a worker: it ends with the command, whatever ends that."""
    if die is not None:
        die()
    # The collector looked at the same modules again and again: 15 % of a seed's time, measured.
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    if mistake is not None:
        BREAKS[mistake]()


def _quietly(number: int, sites: int) -> Outcome:
    """Without the timeline of a seed that is fine: nobody reads it."""
    try:
        outcome = run(number, sites)
    except Exception as error:
        error.add_note(f"again: ./dev sim --seed {number} --sites {sites}")
        raise
    return outcome if outcome.verdict.violations else outcome.without_timeline()


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
