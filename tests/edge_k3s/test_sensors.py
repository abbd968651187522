"""The broker of a site's own sensors, as its manifests configure it, on a real mosquitto."""

import base64
import dataclasses
import functools
import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.config import load_site
from edge_hub.broker.passwords import hash_password
from edge_k3s.rendering import SECRETS_FILE, SENSORS_FILE, SITE_FILE, render
from edge_k3s.sensors import PORT, SERVICE
from edge_k3s.spec import KitSpec, PodOptions, SensorBroker
from edge_models.errors import ConfigError

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

Object = dict[str, Any]
LAN = ("192.0.2.0/24", "2001:db8::/64")


@pytest.fixture
def site(spec: KitSpec) -> KitSpec:
    users = {
        spec.local.username: hash_password(spec.local.password or "").as_text(),
        "sensors": hash_password("sensor secret").as_text(),
    }
    return dataclasses.replace(spec, pod=PodOptions(sensors=SensorBroker("mosquitto:2.0.22", LAN, users, 31900)))


def objects(spec: KitSpec) -> dict[tuple[str, str], Object]:
    items = [item for text in render(spec).values() for item in yaml.safe_load_all(text)]
    return {(item["kind"], item["metadata"]["name"]): item for item in items}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def port(site: KitSpec, tmp_path: Path) -> Iterator[int]:
    """The broker, with the mounts of its pod in a folder and another port."""
    made = objects(site)
    pod = made["Deployment", "sensors"]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    contents = {
        "config": {k: v.encode() for k, v in made["ConfigMap", "sensors-config"]["data"].items()},
        "secrets": {k: base64.b64decode(v) for k, v in made["Secret", "sensors-users"]["data"].items()},
    }
    number = free_port()
    # Started by root it would become another user, who can't read this folder; a pod's user is never root.
    ours = {
        b"listener 1883": b"listener %d 127.0.0.1\nuser %s" % (number, pwd.getpwuid(os.getuid()).pw_name.encode()),
        **{mount.encode(): str(tmp_path / name).encode() for name, mount in mounts.items()},
    }
    for name, files in contents.items():
        (tmp_path / name).mkdir()
        for file, data in files.items():
            placed = functools.reduce(lambda text, pair: text.replace(*pair), ours.items(), data)
            (tmp_path / name / file).write_bytes(placed)
            (tmp_path / name / file).chmod(0o440)
    command = pod["containers"][0]["command"]
    conf = command[-1].replace(mounts["config"], str(tmp_path / "config"))
    with open(tmp_path / "log", "wb") as log:
        child = subprocess.Popen([str(MOSQUITTO), command[1], conf], stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and child.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", number), 1):
                break
            time.sleep(0.02)
        yield number
    finally:
        child.terminate()
        child.wait(10)


class Client:
    """One connection, and what it heard."""

    def __init__(self, port: int, user: str | None, password: str | None) -> None:
        self.code: str | None = None
        self.granted: list[int] = []
        self.heard: list[tuple[str, bytes]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        if user is not None:
            self._client.username_pw_set(user, password)
        self._client.on_connect = lambda _c, _u, _f, reason, _p: setattr(self, "code", str(reason))
        self._client.on_message = lambda _c, _u, m: self.heard.append((m.topic, bytes(m.payload)))
        self._client.on_subscribe = lambda _c, _u, _m, codes, _p: self.granted.append(codes[0].value)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        wait_for(lambda: self.code is not None)

    def subscribe(self, topic: str) -> None:
        before = len(self.granted)
        self._client.subscribe(topic, 1)
        wait_for(lambda: len(self.granted) > before)

    def publish(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, 1).wait_for_publish(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def wait_for(condition: Any, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


@needs_mosquitto
def test_sensors_and_the_site_hear_each_other_and_of_nothing_else(site: KitSpec, port: int) -> None:
    sensor = Client(port, "sensors", "sensor secret")
    agents = Client(port, site.local.username, site.local.password)
    assert (sensor.code, agents.code) == ("Success", "Success")
    agents.subscribe("#")
    sensor.subscribe("local/plant-07/command")
    for topic in ("edge/v1/plant-07/up/journal", "local/plant-08/press", "local/plant-07/press"):
        sensor.publish(topic, topic.encode())
    agents.publish("local/plant-07/command", b"stop")
    wait_for(lambda: sensor.heard and agents.heard)
    assert sensor.heard == [("local/plant-07/command", b"stop")]
    # At QoS 1 in the order of one connection: what is before the last would have come before it.
    wait_for(lambda: len(agents.heard) >= 2)
    assert {topic for topic, _ in agents.heard} == {"local/plant-07/press", "local/plant-07/command"}
    sensor.close()
    agents.close()


@needs_mosquitto
@pytest.mark.parametrize(("user", "password"), [(None, None), ("sensors", "wrong"), ("plant-07", "sensor secret")])
def test_nobody_else_comes_in(port: int, user: str | None, password: str | None) -> None:
    client = Client(port, user, password)
    assert client.code == "Not authorized"
    client.close()


def test_the_pods_site_file_names_the_broker_beside_it(site: KitSpec, tmp_path: Path) -> None:
    made = objects(site)
    (tmp_path / "site.yaml").write_text(made["ConfigMap", "site-config"]["data"]["site.yaml"])
    for name in ("sensors", "machines"):
        endpoint = load_site(tmp_path / "site.yaml").endpoint(name)
        assert (endpoint.url, endpoint.username) == (f"mqtt://{SERVICE}:{PORT}", site.local.username)
    service = made["Service", SERVICE]["spec"]
    assert (service["ports"][0]["port"], service["ports"][0]["nodePort"]) == (PORT, 31900)


def test_the_networks_of_sensors_come_in_and_nothing_goes_out(site: KitSpec) -> None:
    made = objects(site)
    policy = made["NetworkPolicy", "sensors"]["spec"]
    site_pod, networks = policy["ingress"]
    assert networks["from"] == [{"ipBlock": {"cidr": cidr}} for cidr in LAN]
    assert (set(policy["policyTypes"]), policy.get("egress")) == ({"Ingress", "Egress"}, None)
    labels = made["Deployment", "site"]["spec"]["template"]["metadata"]["labels"]
    assert site_pod["from"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    # Only where the sensor's own address arrives can the policy tell networks apart.
    assert made["Service", "sensors"]["spec"]["externalTrafficPolicy"] == "Local"
    reached = {port["port"] for rule in made["NetworkPolicy", "site"]["spec"]["egress"] for port in rule["ports"]}
    assert reached == {53, 8883}


def test_without_networks_only_the_site_comes_in(site: KitSpec) -> None:
    assert site.pod.sensors is not None
    closed = dataclasses.replace(site, pod=PodOptions(sensors=dataclasses.replace(site.pod.sensors, networks=())))
    assert len(objects(closed)["NetworkPolicy", "sensors"]["spec"]["ingress"]) == 1


def test_no_password_is_in_a_file_that_can_be_shown(site: KitSpec) -> None:
    texts = render(site)
    assert site.pod.sensors is not None
    for password in site.pod.sensors.users.values():
        digest = password.rpartition("$")[2]
        assert all(digest not in texts[name] for name in (SITE_FILE, SENSORS_FILE))
        assert digest not in repr(site)
    assert "sensors-users" in texts[SECRETS_FILE]


def test_a_new_password_replaces_the_broker(site: KitSpec) -> None:
    assert site.pod.sensors is not None
    users = {**site.pod.sensors.users, "sensors": hash_password("another").as_text()}
    other = dataclasses.replace(site, pod=PodOptions(sensors=dataclasses.replace(site.pod.sensors, users=users)))
    marks = [
        objects(each)["Deployment", "sensors"]["spec"]["template"]["metadata"]["annotations"] for each in (site, other)
    ]
    assert marks[0] != marks[1]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"image": "mosquitto:latest"}, "image 'mosquitto:latest'"),
        ({"networks": ("the LAN",)}, "network 'the LAN'"),
        ({"node_port": 1883}, "a NodePort is one of 30000 to 32767"),
        ({"users": {"sensors": "$7$1$a$b"}}, "the site's own user '_local_plant-07' is none of the broker's"),
        ({"users": {"_local_plant-07": "plain"}}, "no name and password hash that mosquitto reads"),
        ({"users": {"_local_plant-07": "$7$1$a$b\nadmin:$7$1$a$b"}}, "no name and password hash that mosquitto reads"),
        ({"users": {"_local_plant-07": "$7$1$a$b", "a b": "$7$1$a$b"}}, "user 'a b': no name"),
    ],
)
def test_a_broker_that_would_not_work_is_refused(site: KitSpec, wrong: dict[str, Any], says: str) -> None:
    assert site.pod.sensors is not None
    sensors = dataclasses.replace(site.pod.sensors, **wrong)
    with pytest.raises(ConfigError, match=re.escape(says)):
        render(dataclasses.replace(site, pod=PodOptions(sensors=sensors)))
