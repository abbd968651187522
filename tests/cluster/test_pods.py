"""Pods as kubectl shows them, in the fields that are read: what each says of itself, and what a check makes of it."""

from typing import Any

import pytest

from edge_cluster.pods import Ended, ended, how_it_stands, read_pod
from edge_cluster.watching import read_stream

META = {"name": "site-6d9f-x2x4q", "uid": "0f3b"}
RWOP = (
    "0/1 nodes are available: 1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod"
    " access mode."
)


def shown(status: dict[str, Any], **meta: str) -> dict[str, Any]:
    return {"metadata": META | meta, "status": status}


def conditions(**types: str) -> list[dict[str, str]]:
    return [{"type": name, "status": status} for name, status in types.items()]


def test_a_pod_that_is_ready() -> None:
    container = {"name": "site", "restartCount": 2, "ready": True, "state": {"running": {"startedAt": "now"}}}
    status = {
        "phase": "Running",
        "conditions": conditions(Ready="True", PodScheduled="True"),
        "containerStatuses": [container],
    }
    pod = read_pod(shown(status))
    assert (pod.ready, pod.ending, pod.restarts, pod.unscheduled, pod.waits_for) == (True, False, 2, "", "")


def test_a_pod_that_was_told_to_go() -> None:
    status = {"phase": "Running", "conditions": conditions(Ready="True")}
    pod = read_pod(shown(status, deletionTimestamp="2026-11-29T12:00:00Z"))
    assert pod.ending
    assert how_it_stands([pod]) == "site-6d9f-x2x4q is Running and ending: ready"


def test_a_second_pod_on_a_volume_for_one() -> None:
    refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": RWOP}
    pod = read_pod(shown({"phase": "Pending", "conditions": [refused]}))
    assert "ReadWriteOncePod" in pod.unscheduled
    assert not pod.ready
    assert how_it_stands([pod]) == f"site-6d9f-x2x4q is Pending: {RWOP}"


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"])
@pytest.mark.parametrize("where", ["initContainerStatuses", "containerStatuses"])
def test_a_node_without_the_image(reason: str, where: str) -> None:
    container = {"restartCount": 0, "state": {"waiting": {"reason": reason, "message": "no such image"}}}
    pod = read_pod(shown({"phase": "Pending", where: [container]}))
    assert pod.lacks_image
    assert pod.waits_for == f"{reason}: no such image"


def test_a_pod_whose_first_container_is_still_at_work_waits_for_nothing_to_speak_of() -> None:
    waiting = {"restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}
    pod = read_pod(shown({"phase": "Pending", "containerStatuses": [waiting]}))
    assert (pod.waits_for, pod.lacks_image) == ("", False)


def test_a_pod_that_nobody_has_looked_at_yet_and_none_at_all() -> None:
    pod = read_pod({"metadata": META})
    assert (pod.phase, pod.ready) == ("", False)
    assert how_it_stands([]) == "there is no pod"


def dying(code: int | None, told: bool = True) -> dict[str, Any]:
    ended = {"exitCode": code, "finishedAt": "2026-11-29T12:43:05Z"}
    state = {"running": {"startedAt": "2026-11-29T12:42:40Z"}} if code is None else {"terminated": ended}
    meta = {"deletionTimestamp": "2026-11-29T12:43:48Z", "deletionGracePeriodSeconds": 45} if told else {}
    return {"metadata": META | meta, "status": {"containerStatuses": [{"restartCount": 0, "state": state}]}}


def test_a_pod_that_ended_by_itself_says_so_before_it_is_gone() -> None:
    assert ended([dying(None, told=False), dying(None), dying(0)]) == Ended(0, 2.0)


def test_a_pod_that_had_to_be_killed() -> None:
    assert ended([dying(None), dying(137)]) == Ended(137, 2.0)


def test_a_pod_that_nobody_saw_ending_and_a_container_that_failed_before() -> None:
    assert ended([]) is None
    assert ended([dying(None)]) is None
    assert ended([dying(1, told=False), dying(None)]) is None


def test_what_kubectl_shows_is_read_up_to_where_it_is() -> None:
    assert read_stream('{"a": {"b": 1}}\n{\n "c": 2\n}\n{"d": ') == [{"a": {"b": 1}}, {"c": 2}]
    assert read_stream("") == []
