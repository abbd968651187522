"""The link against real brokers: what a listener raises, and subscriptions that a broker refuses for a while."""

import base64
import hashlib
import json
import os
import pwd
import queue
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_sync.mqtt import Broker, Down, Event, Link, Message, Up

DEADLINE_S = 20.0
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
PLUGIN = next(Path("/usr/lib").glob("**/mosquitto_dynamic_security.so"), None)

AMQTT = """\
import asyncio, sys
from pathlib import Path
from amqtt.broker import Broker
from amqtt.contexts import Action

class Strict(Broker):
    async def _topic_filtering(self, session, topic, action):
        return action != Action.SUBSCRIBE or topic != "secret/#" or Path(sys.argv[2]).exists()

    async def _authenticate(self, session, listener):
        return True

async def main():
    broker = Strict({"listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:" + sys.argv[1]}}, "plugins": {}})
    await broker.start()
    await asyncio.Event().wait()

asyncio.run(main())
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class StrictBroker:
    """A broker that refuses who subscribes to `secret/#`, until `relent`."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._port, self._folder, self._kind = free_port(), folder, kind
        self.url = f"mqtt://127.0.0.1:{self._port}"
        self._log = (folder / "broker.log").open("wb")
        command = self._mosquitto() if kind == "mosquitto" else self._amqtt()
        self._child = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + DEADLINE_S
        while not self._answers():
            assert time.monotonic() < deadline, (folder / "broker.log").read_text()
            time.sleep(0.02)

    def relent(self) -> None:
        """From now on everything may be subscribed. No connection is ended by it."""
        if self._kind == "amqtt":
            (self._folder / "relented").touch()
            return
        (self._folder / "secret").write_text("admin")
        heard: queue.SimpleQueue[Event] = queue.SimpleQueue()
        admin = Link(Broker(self.url, "admin", "admin", self._folder / "secret"), heard.put)
        admin.start()
        assert heard.get(timeout=DEADLINE_S) == Up()
        command = {"command": "setDefaultACLAccess", "acls": [{"acltype": "subscribe", "allow": True}]}
        order = json.dumps({"commands": [command]}).encode()
        assert admin.publish_and_wait("$CONTROL/dynamic-security/v1", order)
        admin.close()

    def stop(self) -> None:
        self._child.kill()
        self._child.wait()
        self._log.close()

    def _mosquitto(self) -> list[str]:
        salt = os.urandom(12)
        password = hashlib.pbkdf2_hmac("sha512", b"admin", salt, 101, 64)
        admin = {
            "username": "admin",
            "password": base64.b64encode(password).decode(),
            "salt": base64.b64encode(salt).decode(),
            "iterations": 101,
            "roles": [{"rolename": "admin"}],
        }
        may = {"acltype": "publishClientSend", "topic": "$CONTROL/#", "priority": 0, "allow": True}
        open_to_all = {"acltype": "subscribePattern", "topic": "public/#", "priority": 0, "allow": True}
        rules = {
            "defaultACLAccess": {
                "publishClientSend": True,
                "publishClientReceive": True,
                "subscribe": False,
                "unsubscribe": True,
            },
            "clients": [admin],
            "groups": [{"groupname": "all", "roles": [{"rolename": "all"}]}],
            "roles": [{"rolename": "admin", "acls": [may]}, {"rolename": "all", "acls": [open_to_all]}],
            "anonymousGroup": "all",
        }
        (self._folder / "rules.json").write_text(json.dumps(rules))
        user = pwd.getpwuid(os.getuid()).pw_name
        (self._folder / "mosquitto.conf").write_text(
            f"listener {self._port} 127.0.0.1\nallow_anonymous true\nplugin {PLUGIN}\n"
            f"plugin_opt_config_file {self._folder}/rules.json\nlog_dest stderr\nuser {user}\n"
        )
        return [str(MOSQUITTO), "-c", str(self._folder / "mosquitto.conf")]

    def _amqtt(self) -> list[str]:
        (self._folder / "strict.py").write_text(AMQTT)
        return [sys.executable, str(self._folder / "strict.py"), str(self._port), str(self._folder / "relented")]

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port)).close()
        except OSError:
            return False
        return True


@pytest.fixture(params=["mosquitto", "amqtt"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StrictBroker]:
    if request.param == "mosquitto" and (MOSQUITTO is None or PLUGIN is None):
        if os.environ.get("EDGE_TESTS_NEED_MOSQUITTO") == "1":
            pytest.fail("mosquitto or its dynamic security plugin is not installed, and EDGE_TESTS_NEED_MOSQUITTO is 1")
        pytest.skip("mosquitto or its dynamic security plugin is not installed")
    started = StrictBroker(request.param, tmp_path)
    yield started
    started.stop()


Heard = queue.SimpleQueue[Event]
Connect = Callable[..., Link]


@pytest.fixture
def connect(broker: StrictBroker) -> Iterator[Connect]:
    """Opens links and closes them in the end."""
    links: list[Link] = []

    def make(name: str, on_event: Callable[[Event], None], *topics: str, wait_at_most_s: int = 1) -> Link:
        address = Broker(broker.url, name, reconnect_max_s=wait_at_most_s)
        links.append(Link(address, on_event, [(topic, 1) for topic in topics]))
        links[-1].start()
        return links[-1]

    yield make
    for link in links:
        link.close()


def wait_for(heard: Heard, wanted: Event) -> list[Event]:
    """All events up to this one."""
    events: list[Event] = []
    deadline = time.monotonic() + DEADLINE_S
    while not events or events[-1] != wanted:
        events.append(heard.get(timeout=max(0.0, deadline - time.monotonic())))
    return events


REFUSED = Down("the broker refused the subscription to secret/#")


def test_a_refused_subscription_is_said_and_tried_again(broker: StrictBroker, connect: Connect) -> None:
    heard = Heard()
    link = connect("a", heard.put, "public/#", "secret/#")
    assert wait_for(heard, REFUSED) == [REFUSED]
    assert not link.publish("public/x", b"")
    broker.relent()
    assert set(map(repr, wait_for(heard, Up()))) <= {repr(REFUSED), repr(Up())}
    assert link.publish_and_wait("secret/x", b"1")
    assert wait_for(heard, Message("secret/x", b"1", False))


def test_a_subscription_refused_later_takes_the_link_down_until_it_is_granted(
    broker: StrictBroker, connect: Connect
) -> None:
    heard = Heard()
    link = connect("a", heard.put, "public/#")
    wait_for(heard, Up())
    link.subscribe("secret/#", 1)
    assert wait_for(heard, REFUSED) == [REFUSED]
    broker.relent()
    wait_for(heard, Up())
    assert link.publish_and_wait("secret/x", b"1")
    assert wait_for(heard, Message("secret/x", b"1", False))


def test_a_refused_subscription_that_is_withdrawn_lets_the_link_up(connect: Connect) -> None:
    heard = Heard()
    link = connect("a", heard.put, "public/#", "secret/#")
    wait_for(heard, REFUSED)
    link.unsubscribe("secret/#")
    wait_for(heard, Up())


def test_a_broker_that_goes_on_refusing_is_asked_ever_less(connect: Connect) -> None:
    at: queue.SimpleQueue[float] = queue.SimpleQueue()
    connect("a", lambda event: at.put(time.monotonic()) if event == REFUSED else None, "secret/#", wait_at_most_s=30)
    first, second, third, fourth = (at.get(timeout=DEADLINE_S) for _ in range(4))
    assert [second - first >= 0.9, third - second >= 1.9, fourth - third >= 3.9] == [True] * 3


def test_what_a_listener_raises_is_logged_and_ends_nothing(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard()

    def listen(event: Event) -> None:
        heard.put(event)
        raise ZeroDivisionError

    link = connect("a", listen, "public/#")
    wait_for(heard, Up())
    for n in (b"1", b"2"):
        assert link.publish_and_wait("public/x", n)
        wait_for(heard, Message("public/x", n, False))
    link.close()
    assert len(caplog.messages) >= 3
    assert set(caplog.messages) == {"listener_failed"}
    assert all(record.exc_info for record in caplog.records)


def test_subscribing_from_other_threads_while_the_link_comes_up_loses_none(connect: Connect) -> None:
    heard = Heard()
    link = connect("a", heard.put, *(f"public/{n}" for n in range(50)))
    for n in range(50, 100):
        link.subscribe(f"public/{n}", 1)
        link.unsubscribe(f"public/{n - 50}")
    wait_for(heard, Up())
    for n in range(100):
        assert link.publish_and_wait(f"public/{n}", b"")
    events = wait_for(heard, Message("public/99", b"", False))
    topics = [event.topic for event in events if isinstance(event, Message)]
    assert topics == [f"public/{n}" for n in range(50, 100)]
