"""Small real bundles: graphs that run, golden answers that ONNX Runtime itself gave. And a real broker."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
import paho.mqtt.client as paho
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.brain import Brain
from edge_agent.inference.model import Model
from edge_agent.memory.journal import Journal
from edge_agent.policy import load_policy
from edge_models.bundle import Bundle, Golden, read_bundle, write_bundle
from edge_models.contract import Contract
from edge_models.shipped import shipped_path
from edge_models.tensors import ImageSpec, TensorSpec
from edge_sync.release import AgentSpec

LABELS = ("normal", "worn", "broken")


class MakeBundle(Protocol):
    """Writes a bundle and reads it back. `turned` gives another model of the same contract."""

    def __call__(
        self,
        *,
        name: str = "pump",
        version: str = "1",
        turned: bool = False,
        features: int = 8,
        contract: Contract | None = None,
        graph: bytes | None = None,
        golden_shift: float = 0.0,
    ) -> Bundle: ...


def linear_graph(features: int, *, turned: bool = False) -> bytes:
    """``window (batch, features) float32`` → ``scores (batch, 3)``, softmax of a fixed projection, and ``logits``."""
    weight = np.random.default_rng(3).normal(size=(features, len(LABELS))).astype(np.float32)
    weight = weight[:, ::-1].copy() if turned else weight
    nodes = [
        helper.make_node("MatMul", ["window", "weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
    ]
    return model_bytes(
        nodes,
        inputs={"window": (TensorProto.FLOAT, ["batch", features])},
        outputs={
            "scores": (TensorProto.FLOAT, ["batch", len(LABELS)]),
            "logits": (TensorProto.FLOAT, ["batch", len(LABELS)]),
        },
        constants={"weight": weight},
    )


def model_bytes(
    nodes: Sequence[Any],
    inputs: Mapping[str, tuple[int, list[Any]]],
    outputs: Mapping[str, tuple[int, list[Any]]],
    constants: Mapping[str, NDArray[Any]],
) -> bytes:
    """An ONNX model of these parts."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in outputs.items()],
        [numpy_helper.from_array(array, n) for n, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def linear_contract(name: str, version: str, features: int) -> Contract:
    """The contract that `linear_graph` keeps."""
    return Contract(
        name=name,
        version=version,
        task="classification",
        inputs=(TensorSpec("window", ("batch", features), "float32", unit="mm/s"),),
        outputs=(
            TensorSpec("scores", ("batch", len(LABELS)), "float32"),
            TensorSpec("logits", ("batch", len(LABELS)), "float32"),
        ),
        labels=LABELS,
        scores="scores",
        golden_atol=0.01,
    )


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """A maker of bundles."""

    def make(
        *,
        name: str = "pump",
        version: str = "1",
        turned: bool = False,
        features: int = 8,
        contract: Contract | None = None,
        graph: bytes | None = None,
        golden_shift: float = 0.0,
    ) -> Bundle:
        contract = contract or linear_contract(name, version, features)
        graph = graph or linear_graph(features, turned=turned)
        rng = np.random.default_rng(5)
        inputs = {
            spec.name: rng.integers(0, 2, size=_golden_shape(spec)).astype(spec.dtype)
            if np.dtype(spec.dtype).kind != "f"
            else rng.normal(size=_golden_shape(spec)).astype(spec.dtype)
            for spec in contract.inputs
        }
        session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
        names = [spec.name for spec in contract.outputs]
        outputs = dict(zip(names, session.run(names, inputs), strict=True))
        labels = [contract.labels[i] for i in outputs[contract.scores].argmax(axis=1)]
        outputs[contract.scores] = outputs[contract.scores] + np.float32(golden_shift)
        path = tmp_path / f"{contract.name}-{contract.version}-{turned}.bundle"
        write_bundle(
            path, contract=contract, graph=graph, golden=Golden(inputs, outputs, tuple(labels)), card={"name": name}
        )
        return read_bundle(path)

    return make


def _golden_shape(spec: TensorSpec) -> list[int]:
    """Twenty samples: more than the check runs at once. An open axis is 5 long."""
    return [20, *(axis if isinstance(axis, int) else 5 for axis in spec.shape[1:])]


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Bundle:
    """The plain one: ``pump``, one input ``window (batch, 8) float32``, labels normal, worn, broken."""
    return make_bundle()


@pytest.fixture
def picture_bundle(make_bundle: MakeBundle) -> Bundle:
    """Takes 4 x 4 RGB pictures; says ``red``, ``green`` or ``blue`` by the channel that shines most."""
    nodes = [
        helper.make_node("ReduceMean", ["photo"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["means", "sharp"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
    ]
    graph = model_bytes(
        nodes,
        inputs={"photo": (TensorProto.FLOAT, ["batch", 3, 4, 4])},
        outputs={"scores": (TensorProto.FLOAT, ["batch", 3])},
        constants={"sharp": np.array(8, np.float32)},
    )
    contract = Contract(
        name="lamp",
        version="1",
        task="classification",
        inputs=(TensorSpec("photo", ("batch", 3, 4, 4), "float32"),),
        outputs=(TensorSpec("scores", ("batch", 3), "float32"),),
        labels=("red", "green", "blue"),
        scores="scores",
        golden_atol=0.01,
        image=ImageSpec(width=4, height=4, mode="RGB", scale=1 / 255, layout="NCHW"),
    )
    return make_bundle(contract=contract, graph=graph)


@pytest.fixture
def two_input_bundle(make_bundle: MakeBundle) -> Bundle:
    """Takes ``sound (batch, time) float32`` with an open axis, and ``mode (batch, 1) int64``."""
    nodes = [
        helper.make_node("ReduceMean", ["sound"], ["loud"], axes=[1], keepdims=1),
        helper.make_node("Cast", ["mode"], ["mode_f"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["loud", "mode_f"], ["logits"], axis=1),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
    ]
    graph = model_bytes(
        nodes,
        inputs={"sound": (TensorProto.FLOAT, ["batch", "time"]), "mode": (TensorProto.INT64, ["batch", 1])},
        outputs={"scores": (TensorProto.FLOAT, ["batch", 2])},
        constants={},
    )
    contract = Contract(
        name="fan",
        version="1",
        task="classification",
        inputs=(TensorSpec("sound", ("batch", "time"), "float32"), TensorSpec("mode", ("batch", 1), "int64")),
        outputs=(TensorSpec("scores", ("batch", 2), "float32"),),
        labels=("loud", "quiet"),
        scores="scores",
        golden_atol=0.01,
    )
    return make_bundle(contract=contract, graph=graph)


class MakeBrain(Protocol):
    """A brain of the shipped trace model, whose agent replays the model's golden samples."""

    def __call__(self, policy: str = ..., *, name: str = "press", **spec: Any) -> Brain: ...


ALWAYS_ALERT = """
policy: always
version: 1
rules:
  - name: speak
    when: prediction.score >= 0.0
    do: {tool: alert, with: {message: =prediction.label}}
"""


@pytest.fixture(scope="session")
def trace_model() -> Model:
    """The shipped model of traces."""
    return Model(read_bundle(shipped_path("trace", "2")))


@pytest.fixture
def make_brain(trace_model: Model) -> MakeBrain:
    """A maker of brains; keyword arguments are the agent's spec."""

    def make(policy: str = ALWAYS_ALERT, *, name: str = "press", **spec: Any) -> Brain:
        plain = {"source": {"kind": "replay", "file": str(shipped_path("trace", "2")), "limit": 3}, "grants": ["alert"]}
        words = {"name": name, "bundle": trace_model.digest, "policy": "p", **plain, **spec}
        return Brain(AgentSpec.model_validate(words), 1, trace_model, load_policy(policy.encode()))

    return make


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A site's memory, closed at the end."""
    made = Journal(tmp_path / "memory.db", 64, lambda: time.time_ns() // 1000)
    yield made
    made.close()


DEADLINE_S = 20.0
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class LocalBroker:
    """A broker process on a loopback port of its own: mosquitto where there is one, else amqtt. Remembers nothing."""

    def __init__(self, folder: Path) -> None:
        if MOSQUITTO is None and os.environ.get("EDGE_TESTS_NEED_MOSQUITTO") == "1":
            pytest.fail("EDGE_TESTS_NEED_MOSQUITTO=1, and no mosquitto is on PATH, in /usr/sbin or /usr/local/sbin")
        self.kind = "mosquitto" if MOSQUITTO else "amqtt"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"

    def start(self, users: Mapping[str, str] | None = None, client_id_is_user: bool = False) -> None:
        """Start on the port, and wait until it answers. With `users` nobody else comes in (mosquitto only)."""
        if MOSQUITTO:
            lines = [f"listener {self.port} 127.0.0.1", f"allow_anonymous {'false' if users else 'true'}"]
            if users:
                passwords = self._folder / "passwords"
                passwords.write_text("".join(f"{name}:{password}\n" for name, password in users.items()))
                subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True)
                passwords.chmod(0o644)
                self._folder.chmod(0o755)
                lines.append(f"password_file {passwords}")
            if client_id_is_user:
                lines.append("use_username_as_clientid true")
            if os.geteuid() == 0:
                lines.append("user root")
            config = "\n".join(lines) + "\n"
            command = [MOSQUITTO, "-c"]
        else:
            config = (
                f'listeners: {{default: {{type: tcp, bind: "127.0.0.1:{self.port}"}}}}\n'
                "plugins: {amqtt.plugins.authentication.AnonymousAuthPlugin: {allow_anonymous: true}}\n"
            )
            command = [sys.executable, "-m", "amqtt.scripts.broker_script", "-c"]
        file = self._folder / "broker.conf"
        file.write_text(config)
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen([*command, str(file)], stdout=log, stderr=log)
        until = time.monotonic() + DEADLINE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"{self.kind} did not start: {(self._folder / 'broker.log').read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill it, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


class Machine:
    """A machine at the site, by paho itself: says things, and hears what matches its filter."""

    def __init__(self, broker: LocalBroker, name: str, hears: str | None = None, user: tuple[str, str] | None = None):
        self.heard: list[tuple[str, bytes]] = []
        self._hears = hears
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv311)
        self._client.on_message = lambda _client, _user, message: self.heard.append(
            (message.topic, bytes(message.payload))
        )
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_connect = self._connected
        if user:
            self._client.username_pw_set(*user)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        assert self._ready.wait(DEADLINE_S)

    def _connected(self, client: paho.Client, *_: Any) -> None:
        if self._hears:
            client.subscribe(self._hears, 1)
        else:
            self._ready.set()

    def say(self, topic: str, payload: bytes | str, retain: bool = False) -> None:
        """Publish at QoS 1, and wait until the broker has it."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        info.wait_for_publish(DEADLINE_S)
        assert info.is_published()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Eventually(Protocol):
    """Waits until a condition holds; fails where it does not in time."""

    def __call__(self, condition: Any, timeout_s: float = DEADLINE_S) -> None: ...


class MakeMachine(Protocol):
    """A machine at the broker, closed after the test. `user` is a name and a password."""

    def __call__(self, name: str, hears: str | None = None, user: tuple[str, str] | None = None) -> Machine: ...


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalBroker]:
    """A running broker that lets everyone in; stop and start it at will."""
    folder = tmp_path / "broker"
    folder.mkdir()
    local = LocalBroker(folder)
    local.start()
    yield local
    local.stop()


@pytest.fixture
def make_machine(broker: LocalBroker) -> Iterator[MakeMachine]:
    """Makes machines."""
    machines: list[Machine] = []

    def make(name: str, hears: str | None = None, user: tuple[str, str] | None = None) -> Machine:
        machines.append(Machine(broker, name, hears, user))
        return machines[-1]

    yield make
    for machine in machines:
        machine.close()


@pytest.fixture
def eventually() -> Eventually:
    """Waits for a condition."""

    def wait(condition: Any, timeout_s: float = DEADLINE_S) -> None:
        until = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < until, "it did not come about in time"
            time.sleep(0.01)

    return wait


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which broker the tests had."""
    kind = "mosquitto" if MOSQUITTO else "amqtt, since there is no mosquitto here"
    terminalreporter.write_line(f"tests/edge_agent: the broker is {kind}")
