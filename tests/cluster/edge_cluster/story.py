"""The checks in their order, and one run through them."""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from edge_cluster import breaking, holding, raising
from edge_cluster.outcome import Failed, Outcome, Skipped, State
from edge_cluster.trial import Trial
from edge_models.errors import KitError


@dataclass(frozen=True, slots=True)
class Check:
    """One promise. `do` returns what came out, or raises `Failed` or `Skipped`."""

    key: str
    """For --without."""
    name: str
    do: Callable[[Trial], str]
    needed: bool = False
    """Whether nothing after it can be checked where it fails."""


STORY = (
    Check("hub-accepted", "the hub's manifests are taken as they are", raising.hub_accepted, needed=True),
    Check("hub-ready", "the hub's pod starts", raising.hub_ready, needed=True),
    Check("site-accepted", "a kit is made, checked, and its manifests are taken", raising.site_accepted, needed=True),
    Check("site-joined", "the site joins by itself", raising.site_joined, needed=True),
    Check("release", "the release the hub pushes runs", raising.release_runs, needed=True),
    Check("decides", "the site decides about real data, and the hub has it", raising.decides, needed=True),
    Check("doctor", "doctor finds nothing wrong in the pod", holding.doctor),
    Check("end", "the pod is told to end: no record lost", breaking.told_to_end),
    Check("kill", "the pod is killed hard: no record lost", breaking.killed_hard),
    Check("hub-evicted", "the hub's pod is evicted: no record lost", breaking.hub_evicted),
    Check("hub-killed", "the hub's pod is killed hard: no record lost", breaking.hub_killed),
    Check("volumes", "the volumes are the ones they were", breaking.volumes_kept),
    Check("second-pod", "a second pod on the site's memory is refused", breaking.second_pod_refused),
    Check("restricted", "pods that may too much are refused", holding.restricted),
    Check("policies", "network policies hold", holding.policies_hold),
)


def unknown_keys(keys: Collection[str]) -> list[str]:
    """Those that no check that may be left out has."""
    return sorted(set(keys) - {each.key for each in STORY if not each.needed})


def run(trial: Trial, without: Collection[str]) -> Iterator[Outcome]:
    """Each check's outcome as it comes; what is after a failure that all else needs is not reached."""
    stuck = False
    for check in STORY:
        if stuck:
            yield Outcome(check.name, "not reached", 0.0, "")
            continue
        outcome = _one(trial, check) if check.key not in without else _left_out(check)
        stuck = outcome.state == "FAILED" and check.needed
        yield outcome


def _one(trial: Trial, check: Check) -> Outcome:
    began = time.monotonic()
    state: State = "ok"
    trial.notes.clear()
    try:
        said = check.do(trial)
    except Skipped as skipped:
        state, said = "skipped", str(skipped)
    except (Failed, KitError) as failure:
        state, said = "FAILED", str(failure)
    return Outcome(check.name, state, time.monotonic() - began, said, tuple(trial.notes))


def _left_out(check: Check) -> Outcome:
    return Outcome(check.name, "skipped", 0.0, f"--without {check.key}")
