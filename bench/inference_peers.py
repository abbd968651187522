"""The local API beside MLServer and kserve: the same graph, client and machine, in one run.

`python -m bench.inference_peers [FOLDER]`: makes a venv for each of them in FOLDER (out/peers by default) the first
time, and serves a small graph with each, in turns. One client, a raw socket over one kept connection, asks all of
them; what it waits for is the server. MLServer has no binary tensors. The baselines are the two others.
"""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import orjson

from bench.inference import FEATURES, client_of, graph, load, requests_for
from bench.memory import status_mb
from bench.report import Line, show
from edge_agent.api.server import LocalApi
from edge_agent.api.status import Status
from edge_agent.inference.registry import Models

ROUNDS = 3
"""Each server is asked so often, in turns; the median counts."""

READY_S = 120.0

_COMMON = """
import os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(os.environ["GRAPH"], options, providers=["CPUExecutionProvider"])
"""

_MLSERVER = (
    _COMMON
    + """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Onnx(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        window = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        scores = session.run(["scores"], {"window": window.astype("float32")})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])
"""
)

_KSERVE = (
    _COMMON
    + """
from kserve import InferOutput, InferResponse, Model, ModelServer

class Onnx(Model):
    def __init__(self):
        super().__init__("mlp")
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        scores = session.run(["scores"], {"window": payload.inputs[0].as_numpy()})[0]
        output = InferOutput("scores", list(scores.shape), "FP32")
        output.set_data_from_numpy(scores, binary_data=payload.use_binary_outputs)
        return InferResponse(payload.id or "1", "mlp", [output], use_binary_outputs=payload.use_binary_outputs)

ModelServer(http_port=int(os.environ["PORT"]), enable_grpc=False, workers=1).start([Onnx()])
"""
)


@dataclass(frozen=True, slots=True)
class Peer:
    """A server, and how it is started with this graph."""

    name: str
    port: int
    command: tuple[str, ...]
    folder: Path
    binary: bool

    @contextmanager
    def serving(self) -> Iterator[int]:
        """Its process, ready; yields its pid."""
        environment = {
            "GRAPH": str(self.folder / "mlp.onnx"),
            "PORT": str(self.port),
            "PATH": f"{self.folder / 'venv' / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.folder),
        }
        with (self.folder / "log").open("wb") as log:
            child = subprocess.Popen(self.command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        try:
            self._wait(child)
            yield child.pid
        finally:
            child.terminate()
            child.wait(30)

    def _wait(self, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if child.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/models/mlp/ready", timeout=1):
                    return
            except OSError:
                time.sleep(0.2)
        raise SystemExit(f"{self.name} did not get ready: see {self.folder / 'log'}")


def peers(base: Path, data: bytes) -> list[Peer]:
    """Both, installed and with the graph beside them."""
    made = []
    for name, port, package, code in (
        ("mlserver", 8701, "mlserver", _MLSERVER),
        ("kserve", 8702, "kserve", _KSERVE),
    ):
        folder = (base / name).resolve()
        python = folder / "venv" / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "-q", package, "onnxruntime"], check=True)
        (folder / "mlp.onnx").write_bytes(data)
        (folder / "runtime.py").write_text(code)
        command: tuple[str, ...] = (str(python), "runtime.py")
        if name == "mlserver":
            settings = {"debug": False, "host": "127.0.0.1", "http_port": port, "grpc_port": port + 100}
            settings |= {"metrics_port": port + 200, "parallel_workers": 0}
            (folder / "settings.json").write_bytes(orjson.dumps(settings))
            model = {"name": "mlp", "implementation": "runtime.Onnx"}
            (folder / "model-settings.json").write_bytes(orjson.dumps(model))
            command = (str(folder / "venv" / "bin" / "mlserver"), "start", ".")
        made.append(Peer(name, port, command, folder, binary=name == "kserve"))
    return made


def main(base: Path) -> None:
    """Print the table."""
    data = graph(64, 2)
    window = np.random.default_rng(2).normal(size=(1, FEATURES)).astype(np.float32)
    asked = requests_for(window)
    times: dict[tuple[str, str], list[float]] = {}
    memory: dict[str, float] = {}

    def ask(name: str, port: int, kinds: Mapping[str, bytes]) -> None:
        for kind, p50 in client_of(port, kinds).items():
            times.setdefault((name, kind), []).append(p50)

    ready = peers(base, data)
    models = Models()
    models.swap({"mlp": load(data)})
    for _ in range(ROUNDS):
        api = LocalApi(models, Status, tuple, port=0)
        api.start()
        try:
            ask("edge-agent", api.port, asked)
        finally:
            api.close()
        for peer in ready:
            with peer.serving() as pid:
                ask(peer.name, peer.port, {kind: asked[kind] for kind in asked if peer.binary or kind == "JSON"})
                memory[peer.name] = status_mb("VmRSS", pid)
    lines = []
    for (name, kind), seen in sorted(times.items(), key=lambda each: each[0][::-1]):
        ours = median(times["edge-agent", kind])
        target = {"mlserver": "≤ 0.25", "kserve": "≤ 0.2" if kind == "binary" else ""}.get(name, "")
        held = f"{memory[name]:.0f} MB" if name in memory else ""
        ratio = "1" if name == "edge-agent" else f"{ours / median(seen):.2f}"
        lines.append(Line(f"{kind}: {name}", (f"{median(seen):.0f} µs", held), ratio, target))
    show("One small inference by HTTP, p50; ratio: edge-agent's time over the other's", ("p50", "its memory"), lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out/peers"))
