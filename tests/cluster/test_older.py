"""Objects for a Kubernetes older than the kit supports are what that version's own schema takes."""

import copy

import pytest

from edge_cluster.older import fit
from edge_k3s.bases import Object
from edge_k3s.names import OLDEST_MINOR
from edge_k3s.validating import validator
from edge_k3s.yamltext import dump_all


def test_a_version_that_is_supported_gets_them_as_they_are(rendered: list[Object]) -> None:
    before = copy.deepcopy(rendered)
    assert fit(rendered, OLDEST_MINOR) == []
    assert rendered == before


def test_what_an_older_one_can_t_hold_is_said_by_object(rendered: list[Object]) -> None:
    said = fit(rendered, 20)
    assert sum("ReadWriteOnce: 1.20 knows no ReadWriteOncePod" in each for each in said) == 3
    assert [each.partition(":")[0] for each in said if "without a pause" in each] == [
        "Deployment hub",
        "Deployment site",
    ]
    budgets = [each for each in rendered if each["kind"] == "PodDisruptionBudget"]
    assert {each["apiVersion"] for each in budgets} == {"policy/v1beta1"}
    assert all("unhealthyPodEvictionPolicy" not in each["spec"] for each in budgets)


@pytest.mark.parametrize("minor", [25, 26, 28, 30])
def test_the_strict_schema_of_that_version_takes_them(rendered: list[Object], minor: int) -> None:
    validate = validator()
    assert validate is not None
    if minor < 27:
        assert validate(dump_all(rendered, ""), [minor])
    fit(rendered, minor)
    assert validate(dump_all(rendered, ""), [minor]) == ""
