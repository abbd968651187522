"""mqtt.publish against a real broker: what the machine hears, and what happens while the broker is away."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from edge_agent.sources.base import SourceContext
from edge_agent.sources.mqtt import MqttSource
from edge_agent.tools.base import Call, ToolContext
from edge_agent.tools.mqtt_publish import MqttPublish
from edge_models.errors import RejectedError, RetryableError


class Broker(Protocol):
    kind: str
    url: str
    port: int

    def start(self, users: dict[str, str] | None = None, client_id_is_user: bool = False) -> None: ...
    def stop(self) -> None: ...


class Machine(Protocol):
    heard: list[tuple[str, bytes]]


MakeMachine = Callable[..., Machine]
MakeContext = Callable[..., ToolContext]
MakeCall = Callable[..., Call]
Eventually = Callable[..., None]

ARGS = {"endpoint": "machines", "topic": "press-7/stop", "payload": {"why": "worn"}}


@pytest.fixture
def tool(broker: Broker, make_context: MakeContext) -> Iterator[MqttPublish]:
    tool = MqttPublish(make_context(machines={"url": broker.url}))
    yield tool
    tool.close()
    tool.close()


def test_the_machine_hears_payload_and_decision(
    tool: MqttPublish, make_machine: MakeMachine, make_call: MakeCall, eventually: Eventually
) -> None:
    machine = make_machine("press-7", hears="press-7/#")
    result = tool.run(ARGS, make_call("e:decision:7"))
    eventually(lambda: machine.heard)
    ((topic, payload),) = machine.heard
    assert topic == "press-7/stop"
    assert json.loads(payload) == {"decision": "e:decision:7", "why": "worn"}
    assert result == {"endpoint": "machines", "topic": "press-7/stop", "size_bytes": len(payload)}


def test_done_twice_says_the_same_so_the_machine_can_tell(
    tool: MqttPublish, make_machine: MakeMachine, make_call: MakeCall, eventually: Eventually
) -> None:
    machine = make_machine("press-7", hears="press-7/#")
    for _ in range(2):
        tool.run(ARGS, make_call("e:decision:7"))
    eventually(lambda: len(machine.heard) == 2)
    assert machine.heard[0] == machine.heard[1]


def test_retain_is_for_machines_that_come_later(
    tool: MqttPublish, make_machine: MakeMachine, make_call: MakeCall, eventually: Eventually
) -> None:
    tool.run(ARGS | {"retain": True}, make_call())
    late = make_machine("press-7", hears="press-7/#")
    eventually(lambda: late.heard)


def test_many_agents_share_a_tool(
    tool: MqttPublish, make_machine: MakeMachine, make_call: MakeCall, eventually: Eventually
) -> None:
    machine = make_machine("press-7", hears="press-7/#")

    def act(agent: int) -> None:
        for n in range(10):
            tool.run(ARGS, make_call(f"{agent}:{n}"))

    agents = [threading.Thread(target=act, args=(n,)) for n in range(8)]
    for agent in agents:
        agent.start()
    for agent in agents:
        agent.join()
    eventually(lambda: len(machine.heard) == 80)
    decisions = sorted(json.loads(payload)["decision"] for _, payload in machine.heard)
    assert decisions == sorted(f"{agent}:{n}" for agent in range(8) for n in range(10))


def test_a_broker_that_goes_and_comes(
    broker: Broker, tool: MqttPublish, make_machine: MakeMachine, make_call: MakeCall, eventually: Eventually
) -> None:
    tool.run(ARGS, make_call("before"))
    broker.stop()
    for _ in range(3):  # before and after the break is noticed
        with pytest.raises(RetryableError, match=r"mqtt\.publish: endpoint machines: "):
            tool.run(ARGS, make_call("away", within_s=1))
    broker.start()
    machine = make_machine("press-7", hears="press-7/#")

    def works() -> bool:
        try:
            tool.run(ARGS, make_call("after"))
        except RetryableError:
            return False
        return True

    eventually(works)
    eventually(lambda: any(b"after" in payload for _, payload in machine.heard))
    assert not any(b"away" in payload for _, payload in machine.heard), "what failed must not be done later"


def test_what_was_not_acknowledged_is_not_sent_when_the_link_returns(
    make_context: MakeContext, make_call: MakeCall
) -> None:
    """A broker that takes a command, says nothing, breaks, and comes back: the command must not come again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tool = MqttPublish(make_context(machines={"url": f"mqtt://127.0.0.1:{listener.getsockname()[1]}"}))
        failures: list[BaseException] = []

        def act() -> None:
            try:
                tool.run(ARGS, make_call("stale"))
            except RetryableError as error:
                failures.append(error)

        acting = threading.Thread(target=act)
        acting.start()
        first = accept_client(listener)
        assert b"stale" in read_until(first, b"stale")
        started = time.monotonic()
        first.close()
        acting.join(20)
        assert len(failures) == 1
        assert time.monotonic() - started < 10, "the break is noticed well before the deadline"
        second = accept_client(listener)
        # News of the new connection may come a moment after the CONNACK was sent.
        seen = b""
        until = time.monotonic() + 20
        while b"fresh" not in seen and time.monotonic() < until:
            fresh = threading.Thread(target=try_to, args=(tool, make_call("fresh", within_s=0.3)))
            fresh.start()
            seen += read_until(second, b"fresh", timeout_s=0.3)
            fresh.join()
        assert b"fresh" in seen
        assert b"stale" not in seen
        tool.close()
        second.close()


def try_to(tool: MqttPublish, call: Call) -> None:
    try:
        tool.run(ARGS, call)
    except RetryableError:
        return


def accept_client(listener: socket.socket) -> socket.socket:
    """The next MQTT client, its CONNECT read and accepted."""
    listener.settimeout(20)
    client, _ = listener.accept()
    client.settimeout(20)
    assert client.recv(1024)[0] == 0x10
    client.sendall(b"\x20\x02\x00\x00")
    return client


def read_until(client: socket.socket, wanted: bytes, timeout_s: float = 20) -> bytes:
    client.settimeout(timeout_s)
    data = b""
    try:
        while wanted not in data:
            piece = client.recv(4096)
            if not piece:
                break
            data += piece
    except TimeoutError:
        pass
    return data


def test_a_broker_that_is_not_there_fails_at_once_and_says_so(
    broker: Broker, tool: MqttPublish, make_call: MakeCall
) -> None:
    broker.stop()
    started = time.monotonic()
    with pytest.raises(RetryableError, match=r"mqtt\.publish: endpoint machines: no connection to mqtt://"):
        tool.run(ARGS, make_call())
    assert time.monotonic() - started < 10


def test_a_broker_that_says_nothing_is_given_until_the_deadline(make_context: MakeContext, make_call: MakeCall) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tool = MqttPublish(make_context(machines={"url": f"mqtt://127.0.0.1:{silent.getsockname()[1]}"}))
        started = time.monotonic()
        with pytest.raises(RetryableError, match="no answer from the broker"):
            tool.run(ARGS, make_call(within_s=0.5))
        assert 0.4 < time.monotonic() - started < 10
        tool.close()


def test_after_the_deadline_nothing_is_sent(
    tool: MqttPublish, make_machine: MakeMachine, make_call: MakeCall, eventually: Eventually
) -> None:
    machine = make_machine("press-7", hears="press-7/#")
    with pytest.raises(RetryableError, match="the deadline has passed"):
        tool.run(ARGS, make_call("late", within_s=-1))
    tool.run(ARGS, make_call("in time"))
    eventually(lambda: machine.heard)
    assert [json.loads(payload)["decision"] for _, payload in machine.heard] == ["in time"]


def test_source_and_tool_share_the_connection_of_one_user(
    broker: Broker, make_context: MakeContext, make_machine: MakeMachine, make_call: MakeCall, tmp_path: Path
) -> None:
    if broker.kind != "mosquitto":
        pytest.skip("the fixture's amqtt knows no users")
    broker.stop()
    broker.start(users={"cell": "s", "press": "s"}, client_id_is_user=True)
    (tmp_path / "secret").write_text("s")
    context = make_context(machines={"url": broker.url, "username": "cell", "password_file": "secret"})
    source = MqttSource(
        {"endpoint": "machines", "topic": "press-7/#"},
        SourceContext("plant-01", "press", tmp_path, tmp_path / "data", context.endpoint, context.now_us),
    )
    tool = MqttPublish(context)
    source.start()
    for n in range(20):
        tool.run(ARGS | {"payload": {"n": n}}, make_call())
        (heard,) = source.take(1, 10)
        assert getattr(heard, "values", {})["n"] == n
    source.close()
    tool.run(ARGS, make_call())
    tool.close()


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ({"topic": "t"}, "mqtt.publish: key 'endpoint' is missing"),
        (ARGS | {"topic": "press/+"}, "mqtt.publish: topic: a topic to publish to has no wildcards (+ or #)"),
        (ARGS | {"topic": "$SYS/x"}, "mqtt.publish: topic: topics that begin with $ are the broker's own"),
        (ARGS | {"payload": [1]}, "mqtt.publish: payload: Input should be a valid dictionary"),
        (ARGS | {"payload": {"decision": 1}}, "mqtt.publish: payload.decision: the decision's id goes there"),
        (ARGS | {"payload": {"a": object()}}, "mqtt.publish: payload: no JSON"),
        (ARGS | {"payload": {"a": "x" * 300_000}}, "mqtt.publish: payload: 300049 bytes, the most is 262144"),
        (ARGS | {"retian": True}, "mqtt.publish: unknown key 'retian' (did you mean 'retain'?)"),
        (ARGS | {"retain": 1}, "mqtt.publish: retain: Input should be a valid boolean (came 1)"),
        (ARGS | {"endpoint": "machine"}, "no endpoint is named 'machine' in the site file (there are: machines)"),
    ],
)
def test_wrong_arguments_are_named(tool: MqttPublish, make_call: MakeCall, args: dict[str, Any], problem: str) -> None:
    with pytest.raises(RejectedError) as caught:
        tool.run(args, make_call())
    assert problem in str(caught.value)


def test_an_endpoint_that_is_no_broker_is_refused(make_context: MakeContext, make_call: MakeCall) -> None:
    tool = MqttPublish(make_context(machines={"url": "http://10.0.0.7"}))
    with pytest.raises(RejectedError, match="write mqtts://HOST:8883"):
        tool.run(ARGS, make_call())
