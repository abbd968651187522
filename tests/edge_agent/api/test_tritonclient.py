"""The Open Inference Protocol, driven by a client that nobody here wrote."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient import http

from edge_agent.inference.model import Model
from edge_models.bundle import Bundle

WINDOW = np.random.default_rng(11).normal(size=(2, 8)).astype(np.float32)


@pytest.fixture
def client(site: Any) -> Iterator[Any]:
    made = http.InferenceServerClient(f"127.0.0.1:{site.api.port}")
    yield made
    made.close()


def window(array: Any = WINDOW, datatype: str = "FP32", *, binary: bool) -> Any:
    tensor = http.InferInput("window", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def test_health_and_metadata(client: Any, bundle: Bundle) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("pump")
    assert client.is_model_ready("pump", "1")
    assert not client.is_model_ready("pump", "2")
    assert not client.is_model_ready("fan")
    server = client.get_server_metadata()
    assert server["name"] == "edge-agent"
    assert server["extensions"] == ["binary_tensor_data"]
    model = client.get_model_metadata("pump")
    assert model["versions"] == ["1"]
    assert model["inputs"] == [{"name": "window", "datatype": "FP32", "shape": [-1, 8]}]
    assert [output["name"] for output in model["outputs"]] == ["scores", "logits"]
    assert model["parameters"]["digest"] == bundle.digest


@pytest.mark.parametrize("binary_in", [True, False], ids=["binary-in", "json-in"])
@pytest.mark.parametrize("binary_out", [True, False, None], ids=["binary-out", "json-out", "all-out"])
@pytest.mark.parametrize("compressed", [None, "gzip", "deflate"])
def test_infer(client: Any, bundle: Bundle, binary_in: bool, binary_out: bool | None, compressed: str | None) -> None:
    expected = Model(bundle).run({"window": WINDOW})
    wanted = (
        None
        if binary_out is None
        else [http.InferRequestedOutput(name, binary_data=binary_out) for name in ("logits", "scores")]
    )
    result = client.infer(
        "pump",
        [window(binary=binary_in)],
        outputs=wanted,
        request_id="r-7",
        model_version="1",
        request_compression_algorithm=compressed,
    )
    for name in ("scores", "logits"):
        assert result.as_numpy(name) == pytest.approx(expected[name], abs=1e-6)
    response = result.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("pump", "1", "r-7")
    assert response["parameters"]["digest"] == bundle.digest


def test_only_the_outputs_asked_for(client: Any) -> None:
    result = client.infer("pump", [window(binary=True)], outputs=[http.InferRequestedOutput("logits")])
    assert result.as_numpy("scores") is None
    assert result.as_numpy("logits").shape == (2, 3)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("array", "datatype", "why"),
    [
        (np.zeros((3, 12), np.float32), "FP32", r"came \(3, 12\) float32, wanted \(batch, 8\) float32"),
        (np.zeros((1, 8), np.float64), "FP64", "came datatype 'FP64', wanted 'FP32'"),
        (np.zeros((1, 8), np.int32), "INT32", "came datatype 'INT32', wanted 'FP32'"),
        (np.array([["a"] * 8], dtype=object), "BYTES", "came datatype 'BYTES', wanted 'FP32'"),
    ],
    ids=["shape", "fp64", "int32", "bytes"],
)
def test_a_wrong_tensor(client: Any, array: Any, datatype: str, why: str, binary: bool) -> None:
    with pytest.raises(http.InferenceServerException, match=why) as caught:
        client.infer("pump", [window(array, datatype, binary=binary)])
    assert caught.value.status() == "400"


def test_an_unknown_model_and_version(client: Any) -> None:
    with pytest.raises(http.InferenceServerException, match=r"no model is named 'fan' here \(there are: pump\)"):
        client.infer("fan", [window(binary=True)])
    with pytest.raises(http.InferenceServerException, match="model 'pump' is here in version '1' only"):
        client.infer("pump", [window(binary=True)], model_version="9")


def test_a_body_that_is_too_large_is_told_so(client: Any) -> None:
    huge = np.zeros((17 * 1024 * 1024 // 32, 8), np.float32)
    with pytest.raises(http.InferenceServerException, match="larger than 16777216 bytes") as caught:
        client.infer("pump", [window(huge, binary=True)])
    assert caught.value.status() == "413"


def test_the_largest_body_is_answered(client: Any) -> None:
    large = np.zeros((15 * 1024 * 1024 // 32, 8), np.float32)
    result = client.infer("pump", [window(large, binary=True)], outputs=[http.InferRequestedOutput("scores")])
    assert result.as_numpy("scores").shape == (len(large), 3)


def test_no_request_fails_while_the_model_is_swapped(site: Any, make_bundle: Callable[..., Bundle]) -> None:
    old, new = make_bundle(), make_bundle(turned=True, version="2")
    right = {b.contract.version: Model(b).run({"window": WINDOW})["scores"] for b in (old, new)}
    stop = threading.Event()
    failures: list[object] = []
    answered: list[str] = []

    def ask() -> None:
        # A client of its own: they are not for sharing between threads.
        client = http.InferenceServerClient(f"127.0.0.1:{site.api.port}")
        try:
            while not stop.is_set():
                result = client.infer("pump", [window(binary=True)])
                version = result.get_response()["model_version"]
                if not np.allclose(result.as_numpy("scores"), right[version], atol=1e-6):
                    failures.append(version)
                answered.append(version)
        except http.InferenceServerException as error:
            failures.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(10):
        site.models.swap({"pump": Model(new if turn % 2 == 0 else old)})
        _wait_for(answered, len(answered) + 8, failures)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert failures == []
    assert set(answered) == {"1", "2"}
    assert site.models.stats()["pump"].failures == 0


def _wait_for(answered: list[str], count: int, failures: list[object]) -> None:
    """Return when there are `count` answers, or a failure that the test then reports."""
    deadline = time.monotonic() + 20
    while len(answered) < count and not failures:
        assert time.monotonic() < deadline, "the requests have stopped"
        time.sleep(0.001)
