"""What `kubectl get pods -o json` says of a pod, as far as a check asks."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

NO_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"})
"""What the kubelet calls an image that it has not and can't get."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod at one moment."""

    name: str
    uid: str
    phase: str
    ready: bool
    ending: bool
    """Whether it was told to go."""
    unscheduled: str
    """Why no node takes it; empty where one did, or nobody has said yet."""
    waits_for: str
    """Why a container of it does not start, as ``REASON: MESSAGE``; empty where none waits."""
    restarts: int

    @property
    def lacks_image(self) -> bool:
        """Whether the node has no such image and can't fetch it."""
        return self.waits_for.partition(":")[0] in NO_IMAGE


def read_pod(shown: dict[str, Any]) -> Pod:
    """From one object."""
    status = shown.get("status", {})
    conditions = {each["type"]: each for each in status.get("conditions", ())}
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    waiting = [each["state"]["waiting"] for each in containers if "waiting" in each.get("state", {})]
    # An init container is at work, or the node has only just heard of it: no reason to speak of.
    reasons = [each for each in waiting if each.get("reason") not in ("PodInitializing", "ContainerCreating")]
    scheduled = conditions.get("PodScheduled", {})
    return Pod(
        name=shown["metadata"]["name"],
        uid=shown["metadata"]["uid"],
        phase=status.get("phase", ""),
        ready=conditions.get("Ready", {}).get("status") == "True",
        ending="deletionTimestamp" in shown["metadata"],
        unscheduled=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
        waits_for=_waits(reasons[0]) if reasons else "",
        restarts=sum(each.get("restartCount", 0) for each in containers),
    )


def _waits(waiting: dict[str, str]) -> str:
    return f"{waiting.get('reason', '?')}: {waiting.get('message', '')}"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a pod that was told to go ended: the code of its first container that was not 0, and after how long."""

    code: int
    seconds: float


def ended(shown: Iterable[dict[str, Any]]) -> Ended | None:
    """From the states a pod went through; None where it was not seen to end."""
    for each in shown:
        meta, containers = each["metadata"], each.get("status", {}).get("containerStatuses", ())
        ends = [container.get("state", {}).get("terminated") for container in containers]
        if "deletionTimestamp" not in meta or not ends or not all(ends):
            continue
        # When it will be killed at the latest: so long before that it was told.
        told = _time(meta["deletionTimestamp"]) - timedelta(seconds=meta.get("deletionGracePeriodSeconds", 0))
        codes = [int(end["exitCode"]) for end in ends]
        last = max(_time(end["finishedAt"]) for end in ends)
        return Ended(next((code for code in codes if code), 0), max((last - told).total_seconds(), 0.0))
    return None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def how_it_stands(pods: Iterable[Pod]) -> str:
    """Of pods that are not as they should be, in a line."""
    said = []
    for pod in pods:
        why = pod.unscheduled or pod.waits_for or ("not ready" if not pod.ready else "ready")
        said.append(f"{pod.name} is {pod.phase}{' and ending' if pod.ending else ''}: {why}")
    return "; ".join(said) or "there is no pod"
