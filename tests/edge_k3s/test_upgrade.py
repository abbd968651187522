import pytest
import yaml

from edge_k3s.upgrade import Window, parse_window, plans
from edge_models.errors import ConfigError

WINDOW = Window(("sat", "sun"), "02:00", "05:00")


def test_servers_go_before_agents_to_one_version_inside_the_window() -> None:
    text = plans("v1.35.2+k3s1", "v1.36.1+k3s1", WINDOW, "Europe/Berlin", "rancher/k3s-upgrade")
    servers, agents = yaml.safe_load_all(text)
    for plan in (servers, agents):
        assert (plan["apiVersion"], plan["kind"]) == ("upgrade.cattle.io/v1", "Plan")
        spec = plan["spec"]
        assert (spec["version"], spec["concurrency"], spec["cordon"]) == ("v1.36.1+k3s1", 1, True)
        assert "channel" not in spec
        assert spec["window"] == {
            "days": ["sat", "sun"], "startTime": "02:00", "endTime": "05:00", "timeZone": "Europe/Berlin",
        }  # fmt: skip
        assert spec["upgrade"] == {"image": "rancher/k3s-upgrade"}
    assert "prepare" not in servers["spec"]
    assert agents["spec"]["prepare"]["args"] == ["prepare", servers["metadata"]["name"]]
    (where,) = servers["spec"]["nodeSelector"]["matchExpressions"]
    (other,) = agents["spec"]["nodeSelector"]["matchExpressions"]
    assert (where["key"], where["operator"]) == ("node-role.kubernetes.io/control-plane", "In")
    assert other == {"key": where["key"], "operator": "DoesNotExist"}
    assert "rancher/k3s-upgrade:v1.36.1-k3s1" in text


@pytest.mark.parametrize(
    ("current", "version", "says"),
    [
        ("v1.34.1+k3s1", "v1.36.1+k3s1", "go by v1.35 first"),
        ("v1.36.1+k3s1", "v1.35.2+k3s1", "never goes back"),
        ("v1.36.1+k3s1", "v1.36.1+k3s1", "is what the nodes have"),
        ("v1.36.1+k3s1", "v1.36", "write it whole"),
        ("v1.31.1+k3s1", "v1.32.1+k3s1", "need v1.32 or newer"),
        ("stable", "v1.32.1+k3s1", "write it whole"),
    ],
)
def test_a_way_that_kubernetes_does_not_allow(current: str, version: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        plans(current, version, WINDOW, "UTC", "rancher/k3s-upgrade")


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("sat,sun 02:00-05:00", ("sat", "sun")),
        ("mon-wed,Sun 02:00-05:00", ("mon", "tue", "wed", "sun")),
        ("mon-sun 02:00-05:00", ("mon", "tue", "wed", "thu", "fri", "sat", "sun")),
    ],
)
def test_windows(text: str, days: tuple[str, ...]) -> None:
    assert parse_window(text) == Window(days, "02:00", "05:00")


@pytest.mark.parametrize(
    "text",
    ["", "sunday 02:00-05:00", "sun 2-5", "sun 02:00-25:00", "sun 02:00", "sun-mon 02:00-05:00", "sun 02:00-02:00"],
)
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(ConfigError, match="window "):
        parse_window(text)
