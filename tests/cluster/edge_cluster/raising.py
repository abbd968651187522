"""Checks one after the other, each needs those before it: a hub, a site, a release, decisions."""

from typing import Any

from edge_cluster.desk import SITE
from edge_cluster.older import fit
from edge_cluster.outcome import Failed
from edge_cluster.pods import how_it_stands
from edge_cluster.renamed import renamed, stored_in
from edge_cluster.sensing import machine, samples
from edge_cluster.server import free_node_ports
from edge_cluster.trial import Role, Trial
from edge_k3s.bases import Object

SAMPLES = 40
RIGHT = 0.9
"""Of held-out samples, as the tests of containers ask of the same model."""

CLAIMS: tuple[tuple[Role, str], ...] = (("hub", "hub-data"), ("hub", "hub-ca"), ("site", "site-data"))


def hub_accepted(trial: Trial) -> str:
    """The server takes every object of a hub, strictly read, and warns of none."""
    ports = free_node_ports(trial.kubectl, 2)
    rendered = trial.desk.hub_manifests(trial.names.hub_host, ports, trial.storage)
    return _accepted(trial, _own(trial, rendered))


def hub_ready(trial: Trial) -> str:
    """Its pod starts, and enrolment answers."""
    pod = trial.ready_pod("hub")
    trial.until(lambda: trial.desk.ask("/api/v1/sites") is not None, "the hub's API")
    return f"{pod.name}, {pod.restarts} restarts"


def site_accepted(trial: Trial) -> str:
    """Keys, a kit made at that hub and checked, and the server takes every object of it."""
    trial.desk.open_trust()
    return _accepted(trial, _own(trial, trial.desk.site_manifests()))


def site_joined(trial: Trial) -> str:
    """The pod makes its key and gets a certificate by itself: it finds the hub by name, over TLS, past the policies."""
    shown = trial.until(
        lambda: _online(trial), f"{SITE} to be online at the hub", why=lambda: how_it_stands(trial.pods("site"))
    )
    return "online by certificate" if shown["certificate_ends_us"] else "online"


def release_runs(trial: Trial) -> str:
    """What the hub pushes arrives, is verified and runs: only then is the pod ready."""
    trial.desk.push_release()
    pod = trial.ready_pod("site")
    trial.until(lambda: trial.desk.of_site()["release"] == 1, "the hub to hear of release 1")
    for role, claim in CLAIMS:
        trial.volumes[claim] = trial.volume(role, claim)
    return f"{pod.name} is ready, {pod.restarts} restarts"


def decides(trial: Trial) -> str:
    """It decides about real samples, and the hub has each prediction and each decision."""
    trial.until(lambda: _send(trial, SAMPLES), "the site to take samples")
    wanted = {machine(number) for number in range(SAMPLES)}
    trial.until(lambda: wanted <= set(_labels(trial, "decision")), f"{SAMPLES} decisions at the hub")
    trial.until(lambda: wanted <= set(_labels(trial, "prediction")), f"{SAMPLES} predictions at the hub")
    said, known = _labels(trial, "prediction"), samples()
    right = sum(said.get(machine(n)) == known[n % len(known)].truth for n in range(SAMPLES))
    if right < RIGHT * SAMPLES:
        raise Failed(f"{right} of {SAMPLES} predictions are right")
    return f"{SAMPLES} decisions at the hub, {right} of {SAMPLES} predictions right"


def _own(trial: Trial, rendered: list[Object]) -> list[Object]:
    objects = renamed(rendered, trial.names)
    stored_in(objects, trial.storage)
    trial.notes += fit(objects, trial.server.minor)
    return objects


def _accepted(trial: Trial, objects: list[Object]) -> str:
    """What is in no namespace is created, not applied: if it is there already it is somebody else's."""
    wide = [each for each in objects if "namespace" not in each["metadata"]]
    warnings = []
    for each in wide:
        warnings += trial.kubectl.apply([each], "create")
        trial.made.append((each["kind"], each["metadata"]["name"]))
    warnings += trial.kubectl.apply(each for each in objects if each not in wide)
    # What was changed for an older server may be on its way out there.
    warnings = [each for each in warnings if "deprecated" not in each or not trial.notes]
    if warnings:
        raise Failed(f"taken with {len(warnings)} warnings: {warnings[0]}")
    return f"{len(objects)} objects"


def _send(trial: Trial, count: int) -> bool:
    while trial.instruments.sent < count:
        if not trial.instruments.send():
            return False
    return True


def _online(trial: Trial) -> dict[str, Any] | None:
    trial.startable("site")
    shown: dict[str, Any] = trial.desk.of_site()
    return shown if shown["online"] else None


def _labels(trial: Trial, kind: str) -> dict[str, str]:
    """Subject → label, of the site's records of a kind at the hub."""
    found, after = {}, ""
    while True:
        page = trial.desk.of_site(f"/records?kind={kind}&limit=1000{after}")
        found.update({each["subject"]: each["label"] for each in page["records"]})
        if not page["next"]:
            return found
        after = f"&after={page['next']}"
