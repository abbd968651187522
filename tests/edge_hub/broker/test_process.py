import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Authorities

from edge_hub.broker import FEEDER, HUB, BrokerFolder, BrokerProcess, TlsListener
from edge_hub.broker.mosquitto import find_mosquitto
from edge_hub.broker.roles import local_user
from edge_hub.broker.running import find_running, process_born
from edge_models.errors import ConfigError, RetryableError
from edge_sync.mqtt import Down, Up, Will


def until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_site_and_the_hub_hear_each_other(folder: BrokerFolder, connect: Any) -> None:
    site = connect("plant-01", folder.add_user("plant-01", "site"), "edge/v1/plant-01/down/#", "edge/v1/fleet/#").up()
    hub = connect(HUB, folder.add_user(HUB, "hub"), "edge/v1/+/up/#").up()
    site.say("edge/v1/plant-01/up/hello", b"a")
    assert hub.message().payload == b"a"
    hub.say("edge/v1/plant-01/down/ack", b"b")
    assert site.message().payload == b"b"
    hub.say("edge/v1/fleet/chunk/x", b"c")
    assert site.message().payload == b"c"


def test_a_site_cannot_write_for_another_or_downwards(folder: BrokerFolder, connect: Any) -> None:
    hub = connect(HUB, folder.add_user(HUB, "hub"), "edge/v1/+/up/#").up()
    other = connect("plant-02", folder.add_user("plant-02", "site"), "edge/v1/plant-02/down/#", "edge/v1/fleet/#").up()
    site = connect("plant-01", folder.add_user("plant-01", "site")).up()
    for topic in ("edge/v1/plant-02/up/hello", "edge/v1/plant-02/down/ack", "edge/v1/fleet/chunk/x"):
        site.say(topic, b"forged")
    site.say("edge/v1/plant-01/up/hello", b"own")
    assert hub.message().payload == b"own"
    hub.say("edge/v1/plant-02/down/ack", b"true")
    assert other.message().payload == b"true"


def test_a_site_hears_nothing_foreign_whatever_it_subscribes(folder: BrokerFolder, connect: Any) -> None:
    hub = connect(HUB, folder.add_user(HUB, "hub"), "edge/v1/+/up/#").up()
    other = connect("plant-02", folder.add_user("plant-02", "site"), "edge/v1/plant-02/down/#").up()
    hub.say("edge/v1/plant-02/down/desired", b"kept for plant-02", retain=True)
    other.say("edge/v1/plant-02/up/presence", b"kept", retain=True)
    filters = ("#", "edge/v1/plant-02/#", "edge/v1/+/down/desired", "edge/v1/plant-02/up/presence")
    site = connect("plant-01", folder.add_user("plant-01", "site"), *filters).up()
    hub.say("edge/v1/plant-02/down/ack", b"foreign")
    other.say("edge/v1/plant-02/up/hello", b"foreign")
    hub.say("edge/v1/plant-01/down/ack", b"own")
    assert site.message().payload == b"own"


def test_retained_messages_come_to_whoever_may_read_them(folder: BrokerFolder, connect: Any) -> None:
    hub = connect(HUB, folder.add_user(HUB, "hub"), "edge/v1/+/up/#").up()
    hub.say("edge/v1/plant-01/down/desired", b"kept", retain=True)
    message = connect("plant-01", folder.add_user("plant-01", "site"), "edge/v1/plant-01/down/#").up().message()
    assert (message.payload, message.retained) == (b"kept", True)


def test_sensors_of_a_site_keep_to_their_site(folder: BrokerFolder, connect: Any) -> None:
    feeder = connect(FEEDER, folder.add_user(FEEDER, "feeder"), "local/#").up()
    name = local_user("plant-01")
    local = connect(name, folder.add_user(name, "local"), "#").up()
    feeder.say("local/plant-02/press", b"foreign")
    feeder.say("local/plant-01/press", b"own")
    assert local.message().payload == b"own"
    for topic in ("local/plant-02/stop", "edge/v1/plant-01/up/hello", "local/plant-01/stop"):
        local.say(topic, topic.encode())
    heard = [feeder.message().topic for _ in range(3)]
    assert heard == ["local/plant-02/press", "local/plant-01/press", "local/plant-01/stop"]


def test_a_wrong_password_is_refused(folder: BrokerFolder, connect: Any) -> None:
    folder.add_user("plant-01", "site")
    for user in ("plant-01", "plant-99"):
        assert "refused" in str(connect(user, "wrong").answer())


def test_nobody_can_take_the_client_id_of_a_site(folder: BrokerFolder, connect: Any) -> None:
    site = connect("plant-01", folder.add_user("plant-01", "site"), "edge/v1/plant-01/down/#").up()
    hub = connect(HUB, folder.add_user(HUB, "hub")).up()
    thief = connect("plant-02", folder.add_user("plant-02", "site"), client_id="plant-01")
    assert isinstance(thief.answer(), Up | Down)
    hub.say("edge/v1/plant-01/down/ack", b"still here")
    assert site.message().payload == b"still here"


def test_a_will_reaches_only_where_its_site_may_write(
    folder: BrokerFolder, connect: Any, broker: BrokerProcess
) -> None:
    hub = connect(HUB, folder.add_user(HUB, "hub"), "edge/v1/+/up/#").up()
    password = folder.add_user("plant-01", "site")
    foreign = Will("edge/v1/plant-02/up/presence", b"forged")
    site = connect("plant-01", password, will=foreign)
    if isinstance(site.answer(), Up):  # mosquitto lets it in, and drops the will
        break_connection(site.link)
    own = connect("plant-01", password, will=Will("edge/v1/plant-01/up/presence", b"own")).up()
    site.link.close()
    break_connection(own.link)
    assert hub.message().payload == b"own"


def break_connection(link: Any) -> None:
    link._client.socket().shutdown(socket.SHUT_RDWR)


def test_a_replaced_password_ends_the_old(folder: BrokerFolder, connect: Any) -> None:
    old = folder.add_user("plant-01", "site")
    with pytest.raises(ConfigError, match="exists already"):
        folder.add_user("plant-01", "site")
    new = folder.add_user("plant-01", "site", replace=True)
    connect("plant-01", new).up()
    assert "refused" in str(connect("plant-01", old).answer())


def test_another_process_makes_it_reload(folder: BrokerFolder, connect: Any, broker: BrokerProcess) -> None:
    code = "import sys, pathlib; from edge_hub.broker import BrokerFolder;"
    code += "print(BrokerFolder(pathlib.Path(sys.argv[1])).add_user('plant-07', 'site'))"
    done = subprocess.run([sys.executable, "-c", code, str(folder.path)], capture_output=True, text=True, check=True)
    connect("plant-07", done.stdout.strip()).up()
    assert broker.alive()


def test_what_is_written_about_it(folder: BrokerFolder, broker: BrokerProcess) -> None:
    noted = json.loads((folder.path / "broker.json").read_text())
    assert (noted["kind"], noted["port"], noted["pid"]) == (broker.kind, broker.port, broker.pid)
    assert broker.url == f"mqtt://127.0.0.1:{broker.port}"
    broker.stop()
    assert not broker.alive()
    assert find_running(folder.path) is None
    broker.stop()


@pytest.mark.parametrize(
    ("host", "why"), [("127.0.0.1", "another program does"), ("192.0.2.1", "Cannot assign requested address")]
)
def test_a_place_for_sites_that_cannot_be_had_is_named_with_its_option(
    folder: BrokerFolder, tmp_path: Path, host: str, why: str
) -> None:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    Authorities(tmp_path / "ca").equip(folder.tls)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            BrokerProcess(folder, prefer="mosquitto", tls=TlsListener(host, port, folder.tls))
    assert str(caught.value) == f"--mqtts {host}:{port}: mosquitto cannot listen there for sites: {why}"
    assert find_running(folder.path) is None


def test_it_comes_back_on_its_port(folder: BrokerFolder, kind: Any) -> None:
    with BrokerProcess(folder, prefer=kind) as first:
        port = first.port
    with BrokerProcess(folder, prefer=kind) as second:
        assert second.port == port


def test_two_brokers_on_one_folder_are_refused(folder: BrokerFolder, broker: BrokerProcess) -> None:
    with pytest.raises(ConfigError, match=f"process {broker.pid}"):
        BrokerProcess(folder)


def test_a_port_in_use_is_refused_in_one_line(tmp_path: Path, kind: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is in use"):
            BrokerProcess(BrokerFolder(tmp_path), port=port, prefer=kind)


def test_a_broker_that_dies_says_why(folder: BrokerFolder, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "print('first'); print('no such luck')"]
    monkeypatch.setattr(BrokerProcess, "_command", lambda *_: command)
    with pytest.raises(RetryableError, match="ended at once: no such luck"):
        BrokerProcess(folder, prefer=kind)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel ends a child with its parent")
def test_it_ends_with_a_parent_that_is_killed(folder: BrokerFolder, kind: Any) -> None:
    code = "import sys, pathlib, time; from edge_hub.broker import BrokerFolder, BrokerProcess;"
    code += "b = BrokerProcess(BrokerFolder(pathlib.Path(sys.argv[1])), prefer=sys.argv[2]);"
    code += "print(b.pid, flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder.path), kind], stdout=subprocess.PIPE, text=True
    ) as parent:
        try:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            born = process_born(child)
            assert born
        finally:
            os.kill(parent.pid, signal.SIGKILL)
    until(lambda: process_born(child) != born)
