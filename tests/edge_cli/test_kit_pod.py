"""What `node provision` says of a site's pod becomes what the pod is given."""

import re

import pytest

from edge_cli.kit_pod import PodWish
from edge_hub.broker.passwords import PasswordHash
from edge_k3s.spec import Account, PodOptions
from edge_models.errors import ConfigError

LOCAL = Account("mqtts://mqtt.hub.example", "mqtt.hub.example", 8883, "_local_plant-07", "plover")


def test_a_pod_is_given_nothing_that_was_not_asked_for() -> None:
    wish = PodWish()
    wish.check("mqtts://192.0.2.10")
    assert wish.options(LOCAL) == PodOptions()


def test_sensors_come_with_the_name_and_password_of_the_kit() -> None:
    wish = PodWish(2, "mosquitto:2.0.22", ("192.0.2.0/24",), 31900, "watch")
    wish.check(None)
    made = wish.options(LOCAL)
    assert (made.gpus, made.monitoring) == (2, "watch")
    assert made.sensors is not None
    assert (made.sensors.image, made.sensors.networks, made.sensors.node_port) == (
        "mosquitto:2.0.22",
        ("192.0.2.0/24",),
        31900,
    )
    assert list(made.sensors.users) == ["_local_plant-07"]
    assert PasswordHash.from_text(made.sensors.users["_local_plant-07"]).matches("plover")


@pytest.mark.parametrize(
    ("wish", "local_broker", "says"),
    [
        (PodWish(sensor_networks=("192.0.2.0/24",)), None, "also give --sensors-image"),
        (PodWish(sensors_image="m:1"), None, "from which networks do sensors come?"),
        (PodWish(sensors_image="m:1", sensor_networks=("192.0.2.0/24",)), "mqtts://h", "either a broker at mqtts://h"),
    ],
)
def test_options_that_do_not_go_together(wish: PodWish, local_broker: str | None, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        wish.check(local_broker)


def test_a_hub_that_gave_no_password() -> None:
    wish = PodWish(sensors_image="m:1", sensor_networks=("192.0.2.0/24",))
    with pytest.raises(ConfigError, match="gave no password for _local_plant-07"):
        wish.options(Account("mqtts://h", "h", 8883, "_local_plant-07", None))
