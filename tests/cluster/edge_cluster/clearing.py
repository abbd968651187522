"""What a run leaves: what the cluster says where something failed, and nothing of its own when it is over."""

import time
from collections.abc import Sequence

from edge_cluster.kubectl import Kubectl
from edge_cluster.outcome import Failed
from edge_cluster.renamed import RUN_LABEL, Names

LOG_LINES, EVENTS = 25, 20
GONE_S = 300.0
"""How long namespaces may take to go: their pods end first."""


def what_it_says(kubectl: Kubectl, names: Names) -> list[str]:
    """Pods, events and the ends of logs of both namespaces, as kubectl shows them."""
    said = []
    for space in (names.hub, names.site):
        for words in (
            ("get", "pods,pvc", "-n", space, "-o", "wide"),
            ("get", "events", "-n", space, "--sort-by=.lastTimestamp"),
        ):
            done = kubectl.ask(*words, timeout_s=60)
            said += [f"--- kubectl {' '.join(words)}", *(done.out or done.err).splitlines()[-EVENTS:]]
        pods = kubectl.ask("get", "pods", "-n", space, "-o", "name", timeout_s=60).out.split()
        for pod in pods:
            for more in ((), ("--previous",)):
                words = ("logs", pod, "-n", space, "--all-containers", f"--tail={LOG_LINES}", *more)
                done = kubectl.ask(*words, timeout_s=60)
                if done.code == 0 and done.out.strip():
                    said += [f"--- kubectl {' '.join(words)}", *done.out.splitlines()]
    return said


def clear(kubectl: Kubectl, names: Names, made: Sequence[tuple[str, str]]) -> list[str]:
    """Remove what this run made outside of any namespace, and with its namespaces all that is in them; what is left.

    Only what bears the run's label goes, whatever its name.
    """
    for kind, name in reversed(made):
        words = (kind.lower(), f"--field-selector=metadata.name={name}", "-l", f"{RUN_LABEL}={names.prefix}")
        kubectl.ask("delete", *words, "--wait=false", timeout_s=60)
    deadline = time.monotonic() + GONE_S
    while True:
        try:
            left = [f"{kind} {name}" for kind, name in made if kubectl.has(kind.lower(), name)]
        except Failed as failure:
            left = [f"{kind} {name} ({failure})" for kind, name in made]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(1.0)
