"""Releases one after another while machines ask the model 200 times a second: no request fails, and nothing stays.

A real site process and its real HTTP port; the releases come over a real broker. The rate may sag where a machine is
busy; a request may not fail, and every answer is wholly one model's.
"""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from attacker import POLICY, Ground, Made, Victim, agent, wait_until
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_models.bundle import Golden, read_bundle, write_bundle
from edge_models.shipped import shipped_path

RATE_PER_S = 200
CLIENTS = 4
WARM, SWAPS = 2, 10
"""The first swaps load what updates need; the memory after them is what it must come back to."""

WIDTH = 4096
"""4.5 MB of weights: a model that stayed would show."""

MOST_MB = 12.0
"""That the process may hold more after the ten swaps than before: less than three models that stayed."""

ANSWER_TIMEOUT_S = 30.0


def make_bundle(out: Path, version: str, seed: int) -> Path:
    """A model of the trace model's contract, large enough to be prepared."""
    trace = read_bundle(shipped_path("trace", "2"))
    [spec] = trace.contract.inputs
    features = int(np.prod([axis for axis in spec.shape if isinstance(axis, int)]))
    rng, labels = np.random.default_rng(seed), len(trace.contract.labels)
    constants = {
        "w1": rng.normal(size=(features, WIDTH)).astype(np.float32) / np.float32(features**0.5),
        "w2": rng.normal(size=(WIDTH, labels)).astype(np.float32) / np.float32(WIDTH**0.5),
    }
    nodes = [
        helper.make_node("Flatten", [spec.name], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w1"], ["m1"]),
        helper.make_node("Tanh", ["m1"], ["h1"]),
        helper.make_node("MatMul", ["h1", "w2"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, list(spec.shape))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", labels])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    inputs = {spec.name: trace.golden.inputs[spec.name][:8]}
    golden = Golden(inputs, {"scores": scores_of(data, inputs)}, trace.golden.truth[:8])
    [scores] = [each for each in trace.contract.outputs if each.name == trace.contract.scores]
    contract = replace(trace.contract, version=version, outputs=(replace(scores, name="scores"),), scores="scores")
    write_bundle(out, contract=contract, graph=data, golden=golden, card={})
    return out


def scores_of(graph: bytes, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    scores: NDArray[Any] = session.run(["scores"], dict(inputs))[0]
    return scores


class Machines:
    """Ask a model over HTTP at a rate, each over one connection; whatever is not a right answer is remembered."""

    def __init__(self, port: int, model: str, body: bytes, right: Mapping[str, NDArray[Any]]) -> None:
        """`right`: what each model answers, by digest."""
        self._port, self._path, self._body, self._right = port, f"/v2/models/{model}/infer", body, right
        self.failures: list[str] = []
        self.answers: Counter[str] = Counter()
        self.slowest_s = 0.0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * ANSWER_TIMEOUT_S)

    def _ask(self, number: int) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_TIMEOUT_S)) as connection:
            self._ask_over(connection, number)

    def _ask_over(self, connection: http.client.HTTPConnection, number: int) -> None:
        period_s = CLIENTS / RATE_PER_S
        due = time.monotonic() + number / RATE_PER_S
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            start = time.monotonic()
            try:
                connection.request("POST", self._path, self._body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                self._look(response.status, response.read())
            except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                connection.close()
            now = time.monotonic()
            self.slowest_s = max(self.slowest_s, now - start)
            due = max(due + period_s, now)  # what could not be asked in time is not asked all at once

    def _look(self, status: int, body: bytes) -> None:
        if status != 200:
            self.failures.append(f"{status}: {body[:200]!r}")
            return
        said = json.loads(body)
        digest = said["parameters"]["digest"]
        if not np.allclose(said["outputs"][0]["data"], self._right[digest].ravel(), atol=1e-4):
            self.failures.append(f"{digest} answered as another: {said['outputs'][0]['data']}")
        self.answers[digest] += 1


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path / "ground")
    yield made
    made.close()


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    """Two models of one name."""
    return [make_bundle(tmp_path / f"{n}.bundle", f"hot-{n}", seed=n) for n in (1, 2)]


def start_site(ground: Ground, bundle: Path) -> Victim:
    """A site that runs the first model, and has a local API."""
    folder = ground.folder / "plant-01"
    folder.mkdir()
    (folder / "root.json").write_bytes(ground.desk.root)
    (folder / "policy.yaml").write_text(POLICY)
    secret = folder / "hub.password"
    secret.write_text(ground.users.add_user("plant-01", "site"))
    spec = agent(1, bundle, folder / "policy.yaml").model_dump(mode="json", exclude_defaults=True)
    link = {"broker": ground.broker.url, "username": "plant-01", "password_file": str(secret), "root": "root.json"}
    settings = {
        "hub": {**link, "reconnect_max_s": 1},
        "release": 1,
        "agents": [spec],
        "grants": ["alert"],
        "api": {"port": 0},
        "updates": {"trial_s": 3600},
    }
    ground.victims.append(Victim("plant-01", folder, settings))
    return ground.victims[-1].start()


def swap(ground: Ground, site: Victim, made: Made, machines: Machines) -> None:
    """Deliver a release, and wait until machines are answered by its model."""
    ground.desired(site.name, made.envelope(site.name, made.release.release, ground.desk.director))
    site.installs(made.release.release)
    before = machines.answers[made.model]
    wait_until(lambda: machines.answers[made.model] > before, lambda: f"answers by release {made.release.release}")


def weights_mapped(site: Victim) -> set[str]:
    """Files of packed weights that the process has mapped, removed ones included."""
    lines = Path(f"/proc/{site.pid}/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if "/prepared/" in line}


def memory_mb(site: Victim) -> float:
    """What it holds, at its lowest within two seconds: requests come and go meanwhile."""
    seen = []
    end = time.monotonic() + 2
    while time.monotonic() < end:
        seen.append(site.memory_mb())
        threading.Event().wait(0.05)
    return min(seen)


def test_ten_swaps_under_load_fail_no_request_and_leave_nothing(ground: Ground, bundles: list[Path]) -> None:
    releases = [ground.signed(number, bundles[(number - 1) % 2]) for number in range(2, 2 + WARM + SWAPS)]
    for made in releases[:2]:
        ground.serve(made)
    site = start_site(ground, bundles[0])
    ground.tell_trust(site)
    read = [read_bundle(bundle) for bundle in bundles]
    [(name, window)] = [(name, array[:1]) for name, array in read[0].golden.inputs.items()]
    right = {str(each.digest): scores_of(each.graph, {name: window}) for each in read}
    asked = {"name": name, "datatype": "FP32", "shape": list(window.shape), "data": window.ravel().tolist()}
    port_file = site.data / "api.port"
    port = int(wait_until(lambda: port_file.exists() and port_file.read_text().strip(), "the API's port"))
    body = json.dumps({"inputs": [asked]}).encode()
    machines = Machines(port, read[0].contract.name, body, right)
    begin = time.monotonic()
    machines.start()
    try:
        wait_until(lambda: machines.answers.total() >= RATE_PER_S, lambda: f"answers: {machines.failures[:3]}")
        for made in releases[:WARM]:
            swap(ground, site, made, machines)
        before_mb = memory_mb(site)
        for made in releases[WARM:]:
            swap(ground, site, made, machines)
        after_mb = memory_mb(site)
        mapped = weights_mapped(site)
    finally:
        machines.close()
    seconds = time.monotonic() - begin
    print(
        f"{machines.answers.total()} answers in {seconds:.0f} s, the slowest after {machines.slowest_s * 1e3:.0f} ms; "
        f"{before_mb:.1f} MB before the swaps, {after_mb:.1f} MB after"
    )
    assert machines.failures == []
    assert set(machines.answers) == set(right)
    assert machines.answers.total() > seconds * RATE_PER_S / 20, "they were hardly asked"
    assert after_mb <= before_mb + MOST_MB
    assert len(mapped) == 1, mapped
    assert "deleted" not in next(iter(mapped))
    kept = [path.name for path in (site.data / "prepared").iterdir()]
    assert len(kept) <= 2, kept
    assert not any("." + word in each for word in ("making", "tries") for each in kept)
    assert site.alive()
