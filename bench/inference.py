"""What the kit adds to an inference: `Model.run`, `Model.predict` and the local API against a bare session.

Run it: `.venv/bin/python -m bench.inference`. Every ratio is against `InferenceSession.run` of the same graph in the
same run, batch 1; the shapes are those of the reference models. Nothing is asserted.
"""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from edge_agent.api.server import LocalApi
from edge_agent.api.status import Status
from edge_agent.inference.model import Model
from edge_agent.inference.registry import Models
from edge_agent.inference.session import open_session
from edge_models.bundle import Golden, read_bundle, write_bundle
from edge_models.contract import Contract
from edge_models.tensors import TensorSpec

FEATURES, LABELS = 275, ("a", "b", "c", "d")
SECONDS = 2.0
"""For each line of the table."""


def graph(hidden: int, layers: int) -> bytes:
    """An MLP; `hidden` and `layers` set how long it takes."""
    rng = np.random.default_rng(1)
    widths = [FEATURES, *[hidden] * layers, len(LABELS)]
    nodes, weights, last = [], [], "window"
    for i, (a, b) in enumerate(pairwise(widths)):
        weights.append(numpy_helper.from_array((rng.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32), f"w{i}"))
        nodes += [
            helper.make_node("MatMul", [last, f"w{i}"], [f"m{i}"]),
            helper.make_node("Relu", [f"m{i}"], [f"r{i}"]),
        ]
        last = f"r{i}"
    nodes.append(helper.make_node("Softmax", [last], ["scores"], axis=-1))
    made = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", len(LABELS)])],
        weights,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def load(data: bytes) -> Model:
    """The graph as a model, through a real bundle."""
    contract = Contract(
        name="mlp",
        version="1",
        task="classification",
        inputs=(TensorSpec("window", ("batch", FEATURES), "float32"),),
        outputs=(TensorSpec("scores", ("batch", len(LABELS)), "float32"),),
        labels=LABELS,
        scores="scores",
        golden_atol=0.01,
    )
    inputs = np.zeros((1, FEATURES), np.float32)
    scores = open_session(data).run(["scores"], {"window": inputs})[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlp.bundle"
        golden = Golden({"window": inputs}, {"scores": scores}, ("a",))
        write_bundle(path, contract=contract, graph=data, golden=golden, card={})
        return Model(read_bundle(path))


def p50_us(work: Callable[[], Any]) -> float:
    """The median of one call, in microseconds."""
    for _ in range(50):
        work()
    times = []
    end = time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < end:
        work()
        times.append(time.perf_counter() - start)
    return quantiles(times, n=2)[0] * 1e6


def requests_for(window: NDArray[np.float32]) -> dict[str, bytes]:
    """An infer request of this input, as JSON and as binary tensors both ways."""
    tensor = {"name": "window", "shape": list(window.shape), "datatype": "FP32"}
    as_json = orjson.dumps({"inputs": [tensor | {"data": window.ravel().tolist()}]})
    raw = window.tobytes()
    header = orjson.dumps(
        {
            "inputs": [tensor | {"parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }
    )
    binary_field = f"inference-header-content-length: {len(header)}\r\n"
    return {
        "JSON": _request("POST", "/v2/models/mlp/infer", as_json, "content-type: application/json\r\n"),
        "binary": _request("POST", "/v2/models/mlp/infer", header + raw, binary_field),
    }


def ask(port: int, requests: Mapping[str, bytes]) -> dict[str, float]:
    """p50 of each of these requests over one kept connection, in microseconds.

    A raw socket: a client library's own time is not the API's.
    """
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return {what: p50_us(partial(_exchange, connection, data)) for what, data in requests.items()}


def client_of(port: int, requests: Mapping[str, bytes]) -> dict[str, float]:
    """`ask` in a process of its own, or client and server would wait for each other's interpreter lock."""
    given = orjson.dumps({what: data.decode("latin-1") for what, data in requests.items()})
    command = [sys.executable, "-m", "bench.inference", "--client", str(port)]
    done = subprocess.run(command, check=True, input=given, stdout=subprocess.PIPE)
    found: dict[str, float] = orjson.loads(done.stdout)
    return found


def _request(method: str, path: str, body: bytes, fields: str) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{fields}\r\n"
    return head.encode() + body


def _exchange(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request)
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0 or len(received) < end + 4 + _length(received[:end]):
        received += connection.recv(65536)
    if not received.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"the API answered {received[:300]!r}")


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])


def measure(hidden: int, layers: int) -> dict[str, float]:
    """p50 in microseconds by what was done; the bare session comes first."""
    data = graph(hidden, layers)
    model, session = load(data), open_session(data)
    feed = {"window": np.random.default_rng(2).normal(size=(1, FEATURES)).astype(np.float32)}
    took = {
        "InferenceSession.run": p50_us(lambda: session.run(["scores"], feed)),
        "Model.run": p50_us(lambda: model.run(feed)),
        "Model.predict": p50_us(lambda: model.predict(feed)),
    }
    models = Models()
    models.swap({"mlp": model})
    api = LocalApi(models, Status, tuple, port=0)
    api.start()
    requests = {"HTTP alone (health/live)": _request("GET", "/v2/health/live", b"", "")}
    requests |= {f"local API, {kind}": data for kind, data in requests_for(feed["window"]).items()}
    try:
        over_http = client_of(api.port, requests)
    finally:
        api.close()
    return took | over_http


def main() -> None:
    """Print the table."""
    table = Table("model", "what", "p50 µs", "on top µs", "ratio")
    for title, hidden, layers in (("small", 64, 2), ("1 ms and more", 1600, 4)):
        took = measure(hidden, layers)
        bare = took["InferenceSession.run"]
        for what, p50 in took.items():
            table.add_row(title, what, f"{p50:.1f}", f"{p50 - bare:.1f}", f"{p50 / bare:.2f}")
        table.add_section()
    Console().print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        asked = {what: data.encode("latin-1") for what, data in orjson.loads(sys.stdin.buffer.read()).items()}
        print(orjson.dumps(ask(int(sys.argv[2]), asked)).decode())
    else:
        main()
