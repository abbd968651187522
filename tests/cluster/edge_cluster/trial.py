"""What all checks of a run share: the cluster, the desk, the instruments, and how they wait."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from edge_cluster.books import Journal, held, journal, missing, note
from edge_cluster.desk import SITE, Desk
from edge_cluster.kubectl import Kubectl
from edge_cluster.outcome import Failed, Unfit
from edge_cluster.pods import Pod, how_it_stands, read_pod
from edge_cluster.renamed import Names
from edge_cluster.sensing import Instruments
from edge_cluster.server import Server
from edge_cluster.watching import read_stream
from edge_models.errors import RetryableError

Role = Literal["hub", "site"]
T = TypeVar("T")

LOOK_S = 0.5
IMAGE_S = 20.0
"""For so long a node may fail to fetch an image: registries have moments."""

SITE_FILE = "/etc/edge-agent/config/site.yaml"
MOST_RECORDS = 10_000
"""That `memory tail` shows; a run makes one or two thousand."""


@dataclass
class Trial:
    """One run on one cluster."""

    kubectl: Kubectl
    server: Server
    names: Names
    desk: Desk
    instruments: Instruments
    storage: str
    patience_s: float
    """How long a pod may take to be ready, and records to arrive."""
    made: list[tuple[str, str]] = field(default_factory=list)
    """Kind and name of what this run made outside of any namespace: all that it may remove."""
    seen: Journal = field(default_factory=dict)
    """Every record that was ever seen in the site's journal."""
    notes: list[str] = field(default_factory=list)
    """Of the check that runs."""
    volumes: dict[str, str] = field(default_factory=dict)
    """Claim → its own uid and its volume's name, as they were when it was first bound."""
    _lacked_since_s: float | None = None

    def space(self, role: Role) -> str:
        """The namespace."""
        return self.names.hub if role == "hub" else self.names.site

    def pods(self, role: Role) -> list[Pod]:
        """All that the Deployment made, those that end among them."""
        selector = f"app.kubernetes.io/component={role}"
        return [read_pod(each) for each in self.kubectl.get("pods", "-n", self.space(role), "-l", selector)["items"]]

    def ready_pod(self, role: Role, other_than: str = "") -> Pod:
        """Wait for one that is ready and has another uid. Raises `Failed`, or `Unfit` where a node lacks its image."""

        def ready() -> Pod | None:
            pods = self.startable(role)
            return next((pod for pod in pods if pod.ready and not pod.ending and pod.uid != other_than), None)

        return self.until(ready, f"the {role}'s pod to be ready", why=lambda: how_it_stands(self.pods(role)))

    def startable(self, role: Role) -> list[Pod]:
        """The same as `pods`. Raises `Unfit` where a node has lacked the image of one for too long."""
        pods = self.pods(role)
        lacking = next((pod for pod in pods if pod.lacks_image), None)
        if lacking is None:
            self._lacked_since_s = None
        elif self._lacked_since_s is None:
            self._lacked_since_s = time.monotonic()
        elif time.monotonic() > self._lacked_since_s + IMAGE_S:
            raise Unfit(
                f"a node has not the image of {lacking.name} ({lacking.waits_for[:300]}):"
                " bring it there with --load, or name one it can fetch with --image-ref"
            )
        return pods

    def running(self, role: Role) -> str:
        """The name of the pod that runs now. Raises `RetryableError` where none does."""
        try:
            found = [pod for pod in self.pods(role) if pod.phase == "Running" and not pod.ending]
        except Failed as failure:
            raise RetryableError(str(failure)) from None
        if not found:
            raise RetryableError(f"no pod of the {role} runs")
        return f"pod/{found[0].name}"

    def until(self, found: Callable[[], T | None], what: str, why: Callable[[], str] = str) -> T:
        """Wait for a condition, and return what it says; a link that breaks meanwhile is made again.

        Raises `Failed` with what was waited for, and how it stands.
        """
        deadline, last = time.monotonic() + self.patience_s, ""
        while True:
            try:
                if value := found():
                    return value
                last = ""
            except RetryableError as error:
                last = str(error)
            if time.monotonic() > deadline:
                said = "; ".join(filter(None, (why(), last)))
                raise Failed(f"waited {self.patience_s:.0f} s in vain for {what}" + (f" ({said})" if said else ""))
            time.sleep(LOOK_S)

    def at_site(self, *words: object) -> str:
        """An `edge-agent` command in the site's pod; what it printed. Raises `Failed`."""
        return self.kubectl.run(*self.in_site("edge-agent", *words))

    def in_site(self, *words: object) -> tuple[object, ...]:
        """What has kubectl run a command in the site's pod. Raises `RetryableError` where none runs."""
        return ("exec", "-n", self.names.site, self.running("site"), "-c", "site", "--", *words)

    def journal(self) -> Journal:
        """Every record that the site has now, noted as seen."""
        text = self.until(self._tail, "the site's journal")
        records = read_stream(text)
        if len(records) == MOST_RECORDS:
            raise Failed(f"the site has made more than {MOST_RECORDS} records: more than are compared here")
        now = journal(records)
        note(self.seen, now)
        return now

    def delivered(self) -> dict[str, Any]:
        """Wait until the hub has every record that was seen, and all that the site told it of; what it verified."""
        left = said = 0

        def arrived() -> dict[str, Any] | None:
            nonlocal left, said
            verified: dict[str, Any] = self.desk.of_site("/verify")
            left, said = missing(self.seen, held(verified)), self.desk.of_site()["backlog"]
            return verified if not left and not said else None

        def why() -> str:
            return f"{left} that the site has are not there, and {said} that it told of"

        return self.until(arrived, f"{SITE}'s records at the hub", why=why)

    def _tail(self) -> str:
        try:
            return self.at_site("memory", "tail", "-m", SITE_FILE, "-n", MOST_RECORDS, "--json")
        except Failed as failure:
            raise RetryableError(str(failure)) from None

    def volume(self, role: Role, claim: str) -> str:
        """What a claim is bound to: its own uid, and the volume's name and uid. Raises `Failed` where to nothing."""
        shown = self.kubectl.get("pvc", claim, "-n", self.space(role))
        name = shown["spec"].get("volumeName")
        if not name or shown["status"].get("phase") != "Bound":
            raise Failed(f"the claim {claim} is {shown['status'].get('phase')}, not bound")
        return f"{shown['metadata']['uid']} {name} {self.kubectl.get('pv', name)['metadata']['uid']}"
