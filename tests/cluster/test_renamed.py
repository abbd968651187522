"""A run's own namespaces: everything is in them, and nothing else of the objects is changed."""

import copy
import json

from edge_cluster.renamed import RUN_LABEL, Names, renamed, stored_in
from edge_k3s.bases import Object

NAMES = Names("try")


def test_every_object_is_in_the_runs_own_namespaces_and_bears_its_label(rendered: list[Object]) -> None:
    made = renamed(rendered, NAMES)
    for each in made:
        meta = each["metadata"]
        assert meta["labels"][RUN_LABEL] == "try"
        if "namespace" in meta:
            assert meta["namespace"] in ("try-hub", "try-site"), each
        else:
            assert (each["kind"], meta["name"]) in {
                ("Namespace", "try-hub"), ("Namespace", "try-site"), ("PriorityClass", "try-site"),
            }  # fmt: skip
    assert '"edge-hub"' not in json.dumps([each["metadata"].get("namespace") for each in made])


def test_pods_ask_for_the_priority_of_their_own_run(rendered: list[Object]) -> None:
    made = renamed(rendered, NAMES)
    priorities = {each["metadata"]["name"] for each in made if each["kind"] == "PriorityClass"}
    pods = [each["spec"]["template"]["spec"] for each in made if each["kind"] == "Deployment"]
    assert {pod["priorityClassName"] for pod in pods if "priorityClassName" in pod} == priorities == {"try-site"}


def test_names_and_label_apart_they_are_as_rendered(rendered: list[Object]) -> None:
    before = copy.deepcopy(rendered)
    made = renamed(rendered, NAMES)
    assert rendered == before
    for each, was in zip(made, rendered, strict=True):
        del each["metadata"]["labels"][RUN_LABEL]
        text = json.dumps(each).replace('"try-hub"', '"edge-hub"').replace('"try-site"', '"edge-agent"')
        text = text.replace('"priorityClassName": "edge-agent"', '"priorityClassName": "edge-agent-site"')
        if each["kind"] == "PriorityClass":
            text = text.replace('"name": "edge-agent"', '"name": "edge-agent-site"', 1)
        assert json.loads(text) == was


def test_volumes_are_made_by_the_class_that_the_cluster_has(rendered: list[Object]) -> None:
    made = renamed(rendered, NAMES)
    stored_in(made, "standard")
    classes = [each["spec"]["storageClassName"] for each in made if each["kind"] == "PersistentVolumeClaim"]
    assert classes == ["standard"] * 3
