"""The mqtt source against a real broker: what is JSON, what is not, floods, and a broker that goes and comes."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from edge_agent.records import Malformed, Observation
from edge_agent.sources.base import SourceContext
from edge_agent.sources.mqtt import MqttSource
from edge_models.errors import ConfigError


class Broker(Protocol):
    kind: str
    url: str

    def start(self, users: dict[str, str] | None = None, client_id_is_user: bool = False) -> None: ...
    def stop(self) -> None: ...


class Machine(Protocol):
    def say(self, topic: str, payload: bytes | str, retain: bool = False) -> None: ...


MakeMachine = Callable[..., Machine]
MakeContext = Callable[..., SourceContext]
MakeSource = Callable[..., MqttSource]
Eventually = Callable[..., None]


@pytest.fixture
def make_source(broker: Broker, make_context: MakeContext, eventually: Eventually) -> Iterator[MakeSource]:
    """Makes sources of that broker, started and connected; ``user=(name, password file)`` is the endpoint's."""
    sources: list[MqttSource] = []

    def make(agent: str = "press", user: tuple[str, str | None] | None = None, **options: Any) -> MqttSource:
        endpoint = {"url": broker.url} | ({"username": user[0], "password_file": user[1]} if user else {})
        options = {"endpoint": "machines", "topic": "line-1/#"} | options
        source = MqttSource(options, make_context(agent, machines=endpoint))
        sources.append(source)
        source.start()
        eventually(lambda: source.problem is None)
        return source

    yield make
    for source in sources:
        source.close()


def test_the_endpoints_prefix_stands_before_every_topic_and_agents_do_not_see_it(
    broker: Broker, make_context: MakeContext, eventually: Eventually, make_machine: MakeMachine
) -> None:
    endpoint = {"url": broker.url, "topic_prefix": "local/plant-01/"}
    options = {"endpoint": "machines", "topic": "line-1/#"}
    source = MqttSource(options, make_context("press", machines=endpoint))
    source.start()
    try:
        eventually(lambda: source.problem is None)
        machine = make_machine("press")
        machine.say("line-1/press", '{"n": 1}')
        machine.say("local/plant-01/line-1/press", '{"n": 2}')
        [seen] = source.take(5, 10)
        assert isinstance(seen, Observation)
        assert seen.values == {"n": 2, "_topic": "line-1/press"}
    finally:
        source.close()


def take_until(source: MqttSource, last: Callable[[dict[str, Any]], bool], timeout_s: float = 20) -> list[Any]:
    """The values of all that comes, up to and with the one that is `last` (without its topic)."""
    taken: list[Any] = []
    until = time.monotonic() + timeout_s
    while not (taken and last(taken[-1])):
        assert time.monotonic() < until, f"it did not come; what came: {taken}"
        for seen in source.take(3, 0.2):
            assert isinstance(seen, Observation)
            taken.append({key: value for key, value in seen.values.items() if key != "_topic"})
    return taken


def wait_until_dropped(source: MqttSource, count: int, timeout_s: float = 20) -> None:
    """Wait until exactly so many were dropped."""
    dropped, until = 0, time.monotonic() + timeout_s
    while dropped < count:
        assert time.monotonic() < until, f"dropped {dropped}, wanted {count}"
        dropped += source.dropped()
    assert dropped == count


def test_a_message_is_an_observation_with_its_topic(make_source: MakeSource, make_machine: MakeMachine) -> None:
    source = make_source()
    make_machine("press-7").say("line-1/press-7", '{"force": 12.5, "_topic": "forged"}')
    (seen,) = source.take(10, 10)
    assert isinstance(seen, Observation)
    assert seen.values == {"force": 12.5, "_topic": "line-1/press-7"}
    assert seen.source == "mqtt"
    assert not source.exhausted()


def test_what_waits_is_taken_together_and_in_order(make_source: MakeSource, make_machine: MakeMachine) -> None:
    source, machine = make_source(), make_machine("m")
    for n in range(5):
        machine.say("line-1/x", f'{{"n": {n}}}')
    taken = take_until(source, lambda seen: seen == {"n": 4})
    assert [values["n"] for values in taken] == [0, 1, 2, 3, 4]
    assert source.take(3, 0) == []
    assert source.dropped() == 0


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"temperature=7", "no JSON"),
        (b"[1, 2]", "wanted a JSON object, came a list"),
        (b"", "no JSON"),
        (b'{"a": NaN}', "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "nested deeper than 64"),
        (b'{"a": "' + b"x" * 256 * 1024 + b'"}', "the most is 262144"),
        (b"x" * (1024 * 1024 + 1), "1048577 bytes, the most is 262144"),
    ],
    ids=["text", "list", "empty", "nan", "binary", "deep", "large", "larger-than-the-wire"],
)
def test_what_is_no_json_object_is_malformed_and_the_next_message_comes(
    make_source: MakeSource, make_machine: MakeMachine, payload: bytes, reason: str
) -> None:
    source, machine = make_source(), make_machine("m")
    machine.say("line-1/x", payload)
    (bad,) = source.take(1, 10)
    assert isinstance(bad, Malformed)
    assert bad.reason.startswith("topic line-1/x: ")
    assert reason in bad.reason
    assert len(bad.excerpt) <= 200
    machine.say("line-1/x", b"{}")
    (good,) = source.take(1, 10)
    assert isinstance(good, Observation)


def test_a_flood_drops_the_oldest_and_counts_them(make_source: MakeSource, make_machine: MakeMachine) -> None:
    source, machine = make_source(queue=50), make_machine("m")
    for n in range(500):
        machine.say("line-1/x", f'{{"n": {n}}}')
    machine.say("line-1/x", '{"n": "last"}')
    wait_until_dropped(source, 451)
    kept = source.take(100, 0)
    assert [o.values["n"] for o in kept if isinstance(o, Observation)] == [*range(451, 500), "last"]
    assert source.dropped() == 0


def test_large_messages_are_bounded_in_bytes_too(make_source: MakeSource, make_machine: MakeMachine) -> None:
    source, machine = make_source(queue=1000), make_machine("m")
    for _ in range(60):
        machine.say("line-1/x", b'{"a": "' + b"x" * 250_000 + b'"}')
    machine.say("line-1/x", '{"a": "last"}')
    kept = 8 * 1024 * 1024 // 250_250 + 1
    wait_until_dropped(source, 61 - kept)
    assert len(take_until(source, lambda seen: seen["a"] == "last")) == kept


def test_a_broker_that_goes_and_comes_is_waited_for(
    broker: Broker, make_source: MakeSource, make_machine: MakeMachine, eventually: Eventually
) -> None:
    source = make_source()
    make_machine("m1").say("line-1/x", '{"n": 1}')
    assert [o.values["n"] for o in source.take(10, 10) if isinstance(o, Observation)] == [1]
    broker.stop()
    eventually(lambda: source.problem is not None)
    assert source.take(10, 0.05) == []
    broker.start()
    eventually(lambda: source.problem is None)
    make_machine("m2").say("line-1/x", '{"n": 2}')
    assert [o.values["n"] for o in source.take(10, 10) if isinstance(o, Observation)] == [2]


def test_a_broker_that_is_not_there_at_the_start_is_waited_for(
    broker: Broker, make_context: MakeContext, make_machine: MakeMachine, eventually: Eventually
) -> None:
    broker.stop()
    source = MqttSource({"endpoint": "machines", "topic": "t"}, make_context(machines={"url": broker.url}))
    source.start()
    try:
        eventually(lambda: source.problem is not None and "no connection" in source.problem)
        broker.start()
        eventually(lambda: source.problem is None)
        make_machine("m").say("t", "{}")
        assert len(source.take(1, 10)) == 1
    finally:
        source.close()
    assert source.problem == "closed"
    assert source.take(1, 0) == []


def test_a_retained_message_is_taken_once_however_often_the_broker_brings_it(
    make_source: MakeSource, make_machine: MakeMachine
) -> None:
    machine = make_machine("m")
    machine.say("line-1/x", '{"state": "idle"}', retain=True)
    first = make_source(agent="one", user=("cell", None))
    assert take_until(first, lambda seen: True) == [{"state": "idle"}]
    machine.say("line-1/x", '{"state": "idle"}', retain=True)
    assert take_until(first, lambda seen: True) == [{"state": "idle"}], "said again, live: that is news"
    # On the shared connection the second subscription makes the broker bring what it retains to both.
    second = make_source(agent="two", user=("cell", None))
    assert take_until(second, lambda seen: True) == [{"state": "idle"}], "an agent that begins hears it"
    assert first.take(1, 0) == []


def test_a_broker_that_refuses_is_a_visible_problem(
    broker: Broker, make_context: MakeContext, tmp_path: Path, eventually: Eventually
) -> None:
    if broker.kind != "mosquitto":
        pytest.skip("the fixture's amqtt lets everyone in")
    broker.stop()
    broker.start(users={"cell": "right"})
    (tmp_path / "secret").write_text("wrong\n")
    endpoint = {"url": broker.url, "username": "cell", "password_file": "secret"}
    source = MqttSource({"endpoint": "machines", "topic": "t"}, make_context(machines=endpoint))
    source.start()
    try:
        eventually(lambda: source.problem == "the broker refused: Not authorized")
    finally:
        source.close()


def test_two_agents_of_one_user_share_a_connection_where_the_user_is_the_client_id(
    broker: Broker, make_source: MakeSource, make_machine: MakeMachine, tmp_path: Path
) -> None:
    if broker.kind != "mosquitto":
        pytest.skip("the fixture's amqtt knows no users")
    broker.stop()
    broker.start(users={"cell": "s", "press": "s"}, client_id_is_user=True)
    (tmp_path / "secret").write_text("s")
    user = ("cell", "secret")
    first = make_source(agent="one", user=user, topic="line-1/a")
    second = make_source(agent="two", user=user, topic="line-1/b")
    same = make_source(agent="three", user=user, topic="line-1/b")
    machine = make_machine("m", user=("press", "s"))
    for n in range(20):
        machine.say("line-1/a", f'{{"n": {n}}}')
        machine.say("line-1/b", f'{{"n": {n}}}')
        for source, topic in ((first, "line-1/a"), (second, "line-1/b"), (same, "line-1/b")):
            (seen,) = source.take(10, 10)
            assert isinstance(seen, Observation)
            assert seen.values == {"n": n, "_topic": topic}
    with pytest.raises(ConfigError, match="topic 'line-1/#' overlaps 'line-1/a'"):
        make_source(agent="four", user=user, topic="line-1/#")
    second.close()
    machine.say("line-1/b", "{}")
    assert len(same.take(10, 10)) == 1, "one that leaves takes no topic with it that another still hears"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"topic": "t"}, "agent 'press': source mqtt: key 'endpoint' is missing"),
        ({"endpoint": "machines", "topc": "t"}, "unknown key 'topc' (did you mean 'topic'?)"),
        ({"endpoint": "machines", "topic": "a/#/b"}, "topic: the wildcard # stands alone, as the last level"),
        ({"endpoint": "machines", "topic": "a/b+"}, "topic: the wildcard + stands alone in its level"),
        ({"endpoint": "machines", "topic": ""}, "topic: a topic has 1 to 65535 bytes"),
        ({"endpoint": "machines", "topic": "t", "queue": 0}, "queue: Input should be greater than or equal to 1"),
        (
            {"endpoint": "machine", "topic": "t"},
            "no endpoint is named 'machine' in the site file (there are: machines)",
        ),
    ],
)
def test_wrong_options_are_named(make_context: MakeContext, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MqttSource(options, make_context(machines={"url": "mqtt://127.0.0.1:1"}))
    assert problem in str(caught.value)


def test_an_endpoint_that_is_no_broker_is_refused(make_context: MakeContext) -> None:
    with pytest.raises(ConfigError, match="write mqtts://HOST:8883"):
        MqttSource({"endpoint": "web", "topic": "t"}, make_context(web={"url": "http://10.0.0.7"}))
