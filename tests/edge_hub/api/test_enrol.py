"""The operator's API for enrolment. No broker runs here: what one does of it is in tests/integration."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_hub.broker import BrokerFolder
from edge_hub.enrol.authority import make_authority
from edge_hub.enrol.enrolment import Means
from edge_hub.enrol.plan import EnrolPlan
from edge_hub.folder import HubFolder
from edge_hub.hub import Hub, now_us
from edge_sync.enrol.token import parse_token

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub that enrols."""
    folder = HubFolder(tmp_path / "hub")
    brokers = BrokerFolder(folder.broker)
    plan = EnrolPlan("127.0.0.1", 8443, ("hub.example",), folder.authority, "mqtts://hub.example:8883")
    means = Means(plan, make_authority(folder.authority, now_us()), folder.path, brokers)
    made = Hub(folder, brokers, "mqtt://127.0.0.1:1883", means=means, enrol_url="https://hub.example:8443")
    yield made
    made.close()


def test_a_site_is_registered_so_that_it_joins(ask: Ask, hub: Hub) -> None:
    status, made = ask("POST", "/api/v1/sites", {"site": "plant-01", "join": True, "join_days": 3})
    assert status == 201
    assert set(made) == {
        "site", "join_token", "join_expires_us", "enrol_url", "broker_url", "ca", "director_key", "local_username",
        "local_password",
    }  # fmt: skip
    assert (made["broker_url"], made["enrol_url"]) == ("mqtts://hub.example:8883", "https://hub.example:8443")
    assert parse_token(made["join_token"]).name == "plant-01"
    users = BrokerFolder(hub.folder.broker).users()
    assert users["plant-01"].password is None
    assert users["_local_plant-01"].matches(made["local_password"])
    assert ask("POST", "/api/v1/sites", {"site": "plant-01", "join": True})[0] == 409
    again = ask("POST", "/api/v1/sites", {"site": "plant-01", "join": True, "replace": True})[1]
    assert again["join_token"] != made["join_token"]
    with_password = ask("POST", "/api/v1/sites", {"site": "plant-01", "replace": True})[1]
    assert "join_token" not in with_password
    assert BrokerFolder(hub.folder.broker).users()["plant-01"].matches(with_password["password"])
    assert ask("GET", "/api/v1/join-tokens")[1]["join_tokens"][0]["state"] == "void"


@pytest.mark.parametrize("days", [0, 91, "soon"])
def test_a_token_is_good_for_a_day_to_ninety(ask: Ask, days: Any) -> None:
    status, answer = ask("POST", "/api/v1/sites", {"site": "plant-01", "join": True, "join_days": days})
    assert (status, "join_days" in answer["error"]) == (400, True)


def test_many_are_registered_together(ask: Ask, hub: Hub) -> None:
    body: dict[str, Any] = {"sites": [{"site": "a", "labels": {"kind": "shop"}}, {"site": "b"}], "join_days": 2}
    status, answer = ask("POST", "/api/v1/sites/bulk", body)
    assert (status, [each["site"] for each in answer["sites"]]) == (201, ["a", "b"])
    assert all(each["director_key"] == hub.director_key for each in answer["sites"])
    assert ask("GET", "/api/v1/sites/a")[1]["labels"] == {"kind": "shop"}
    for wrong in ([], [{"site": "c"}, {"site": "No"}], [{"site": f"s{i}"} for i in range(1_001)], [{"site": "a"}]):
        assert ask("POST", "/api/v1/sites/bulk", {"sites": wrong})[0] in (400, 409)
    assert len(ask("GET", "/api/v1/sites")[1]["sites"]) == 2


def test_tokens_of_groups_are_made_listed_and_taken_back(ask: Ask) -> None:
    status, made = ask("POST", "/api/v1/join-tokens", {"group": "north", "count": 5, "labels": {"kind": "shop"}})
    assert (status, made["id"], made["enrol_url"]) == (201, "_group-north", "https://hub.example:8443")
    assert parse_token(made["join_token"]).group == "north"
    assert ask("POST", "/api/v1/join-tokens", {"group": "north", "count": 5})[0] == 409
    assert ask("POST", "/api/v1/join-tokens", {"group": "north", "count": 6, "replace": True})[0] == 201
    (listed,) = ask("GET", "/api/v1/join-tokens")[1]["join_tokens"]
    secret = parse_token(made["join_token"]).secret
    assert (listed["id"], listed["state"], listed["sites"], secret in str(listed)) == ("_group-north", "open", 6, False)
    assert ask("DELETE", "/api/v1/join-tokens/_group-north")[0] == 200
    assert ask("DELETE", "/api/v1/join-tokens/_group-north")[0] == 404
    assert ask("GET", "/api/v1/join-tokens")[1]["join_tokens"][0]["state"] == "void"
    for wrong in (
        {"group": "x"},
        {"group": "No", "count": 1},
        {"group": "x", "count": 0},
        {"group": "x", "count": 10_001},
    ):
        assert ask("POST", "/api/v1/join-tokens", wrong)[0] == 400


def test_a_site_is_revoked_again_and_again_and_its_token_with_it(ask: Ask, hub: Hub) -> None:
    ask("POST", "/api/v1/sites", {"site": "plant-01", "join": True})
    status, answer = ask("POST", "/api/v1/sites/plant-01/revoke", {"reason": "stolen"})
    assert (status, answer["certificates"], answer["ended"]) == (200, 0, True)
    assert ask("POST", "/api/v1/sites/plant-01/revoke", {})[1]["revoked_us"] == answer["revoked_us"]
    assert ask("GET", "/api/v1/sites/plant-01")[1]["revoked_us"] == answer["revoked_us"]
    assert ask("GET", "/api/v1/join-tokens")[1]["join_tokens"][0]["state"] == "void"
    assert set(BrokerFolder(hub.folder.broker).users()) == {"_hub"}
    assert ask("POST", "/api/v1/sites/plant-99/revoke", {})[0] == 404
    ask("POST", "/api/v1/sites", {"site": "plant-01", "join": True, "replace": True})
    assert ask("GET", "/api/v1/sites/plant-01")[1]["revoked_us"] is None


def test_all_of_it_needs_the_operators_token(ask: Ask) -> None:
    for method, path in (
        ("POST", "/api/v1/sites/bulk"),
        ("POST", "/api/v1/sites/plant-01/revoke"),
        ("POST", "/api/v1/join-tokens"),
        ("GET", "/api/v1/join-tokens"),
        ("DELETE", "/api/v1/join-tokens/x"),
    ):
        assert ask(method, path, token=None)[0] == 401
