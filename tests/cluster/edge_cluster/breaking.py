"""Checks that break something while the site decides, and count afterwards."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_cluster.books import differences, forgotten, held
from edge_cluster.desk import SITE
from edge_cluster.outcome import Failed, Skipped
from edge_cluster.pods import Ended, ended, how_it_stands
from edge_cluster.raising import CLAIMS
from edge_cluster.server import RWOP_MINOR
from edge_cluster.trial import Role, Trial
from edge_cluster.watching import Watch

EVICT_MINOR = 22
"""From this on evictions are policy/v1. Source: Kubernetes, API-initiated eviction."""

How = Callable[[Trial, str, str], None]
"""Takes away, in this namespace, the pod of this name."""

BEFORE, AFTER = 20, 20
"""Samples that the site takes before something breaks and after it is whole again."""


def told_to_end(trial: Trial) -> str:
    """The site's pod is deleted while it decides: it ends by itself, another takes over, and no record is lost."""
    broken = _broken(trial, "site")
    if broken.end is not None and broken.end.code != 0:
        raise Failed(f"the pod did not end by itself: exit code {broken.end.code} after {broken.end.seconds:.0f} s")
    if broken.end is None:  # Kubernetes promises to show it from 1.27 on
        trial.notes.append("the cluster did not show how the pod ended")
        return f"{broken.back}; {_no_loss(trial)}"
    return f"ended by itself in {broken.end.seconds:.0f} s; {broken.back}; {_no_loss(trial)}"


def killed_hard(trial: Trial) -> str:
    """The same without a moment to end in."""
    return f"{_broken(trial, 'site', _kill).back}; {_no_loss(trial)}"


def hub_evicted(trial: Trial) -> str:
    """The hub's pod goes as a drain of its node has it, past its budget: the site goes on, and delivers later."""
    return _hub_away(trial, _evict)


def hub_killed(trial: Trial) -> str:
    """The same without a moment to end in."""
    return _hub_away(trial, _kill)


def _hub_away(trial: Trial, how: How) -> str:
    site = trial.ready_pod("site")
    broken = _broken(trial, "hub", how)
    after = trial.ready_pod("site")
    if (after.uid, after.restarts) != (site.uid, site.restarts):
        raise Failed(f"the site did not go on by itself: {how_it_stands([after])}")
    return f"{broken.back}; {_no_loss(trial)}"


def volumes_kept(trial: Trial) -> str:
    """Every claim is bound to the volume that it was bound to at first."""
    for role, claim in CLAIMS:
        if (now := trial.volume(role, claim)) != trial.volumes[claim]:
            raise Failed(f"the claim {claim} was {trial.volumes[claim]} and is {now}")
    return ", ".join(trial.volumes[claim].split()[1] for _, claim in CLAIMS)


def second_pod_refused(trial: Trial) -> str:
    """A second pod on the site's memory stays Pending, and the first goes on."""
    if trial.server.minor < RWOP_MINOR:
        raise Skipped(f"Kubernetes {trial.server.text} knows no ReadWriteOncePod")
    first = trial.ready_pod("site")
    _scale(trial, 2)
    try:
        refused = trial.until(
            lambda: next((pod for pod in trial.pods("site") if "ReadWriteOncePod" in pod.unscheduled), None),
            "a second pod to be refused",
            why=lambda: how_it_stands(trial.pods("site")),
        )
    finally:
        _scale(trial, 1)
    trial.until(lambda: len(trial.pods("site")) == 1, "the second pod to go")
    if trial.ready_pod("site").uid != first.uid:
        raise Failed(f"the first pod, {first.name}, is not the one that runs now")
    return refused.unscheduled


@dataclass(frozen=True, slots=True)
class _Broken:
    """What became of a pod that was deleted, and of the one after it."""

    end: Ended | None
    back_s: float

    @property
    def back(self) -> str:
        """In words."""
        return f"another is ready after {self.back_s:.1f} s"


def _delete(trial: Trial, space: str, pod: str) -> None:
    trial.kubectl.run("delete", "pod", pod, "-n", space, "--wait=false")


def _kill(trial: Trial, space: str, pod: str) -> None:
    trial.kubectl.run("delete", "pod", pod, "-n", space, "--wait=false", "--grace-period=0", "--force")


def _evict(trial: Trial, space: str, pod: str) -> None:
    version = "policy/v1" if trial.server.minor >= EVICT_MINOR else "policy/v1beta1"
    wish = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": pod, "namespace": space}}
    path = f"/api/v1/namespaces/{space}/pods/{pod}/eviction"
    trial.kubectl.run("create", "--raw", path, "--filename=-", stdin=json.dumps(wish))


def _broken(trial: Trial, role: Role, how: How = _delete) -> _Broken:
    """Take a pod away in the middle of decisions."""
    pod = trial.ready_pod(role)
    space = trial.space(role)
    trial.instruments.start()
    try:
        _take(trial, BEFORE)
        with Watch(trial.kubectl, space, pod.name) as watch:
            trial.until(watch.seen, f"{pod.name} to be shown")
            trial.journal()  # what it has now it may not lose
            began = time.monotonic()
            how(trial, space, pod.name)
            trial.ready_pod(role, other_than=pod.uid)
            back_s = time.monotonic() - began
            trial.until(
                lambda: ended(watch.seen()) or not trial.kubectl.has("pod", pod.name, "-n", space),
                f"{pod.name} to end",
            )
            end = ended(watch.seen())
        _take(trial, AFTER)
    finally:
        trial.instruments.stop()
    return _Broken(end, back_s)


def _take(trial: Trial, more: int) -> None:
    wanted = trial.instruments.sent + more
    trial.until(lambda: trial.instruments.sent >= wanted, f"the site to take {more} samples more")


def _no_loss(trial: Trial) -> str:
    """All that the site has is at the hub as it was written, nothing is declared lost, and no alarm is raised."""
    now, verified = trial.journal(), trial.delivered()
    found = [f"{each['epoch']}:{each['lane']}:{each['seq']} {each['what']}" for each in verified["findings"]]
    found += differences(trial.seen, held(verified))
    if gone := forgotten(trial.seen, now):
        found.append(f"{gone} records that the site had are no longer in its journal")
    shown = trial.desk.of_site()
    found += [f"{shown[what]} {what}" for what in ("lost", "unknown", "quarantined") if shown[what]]
    incidents = trial.desk.ask(f"/api/v1/incidents?site={SITE}")["incidents"]
    found += [f"the hub notes an incident: {each['what']} {each['detail']}" for each in incidents]
    if found:
        raise Failed("; ".join(found[:4]) + (f"; and {len(found) - 4} more" if len(found) > 4 else ""))
    count, runs = sum(map(len, now.values())), len({epoch for epoch, _ in now})
    return f"all {count} records of {runs} runs of the site are there and at the hub"


def _scale(trial: Trial, replicas: int) -> None:
    trial.kubectl.run("scale", "deployment/site", "-n", trial.names.site, f"--replicas={replicas}")
