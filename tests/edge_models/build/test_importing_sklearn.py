"""A pickled scikit-learn model → a graph that answers as it does, and never without permission."""

import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

if any(find_spec(name) is None for name in ("onnx", "sklearn", "skl2onnx")):
    pytest.skip("the extra `models` is not installed", allow_module_level=True)

from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from edge_models.build.importing import import_model
from edge_models.build.run import answers
from edge_models.build.workdir import Sheet
from edge_models.errors import ConfigError, RejectedError
from edge_models.tensors import TensorSpec

ROWS: NDArray[np.float32] = np.random.default_rng(5).standard_normal((300, 6)).astype(np.float32) * 4
KINDS = np.array(["worn", "new", "broken"])[(ROWS[:, :3].argmax(axis=1))]


def pickled(tmp_path: Path, model: Any) -> str:
    path = tmp_path / "pump.pkl"
    path.write_bytes(pickle.dumps(model))
    return str(path)


def imported(source: str, **options: Any) -> tuple[Sheet, bytes]:
    sheet, graph, files = import_model(
        source, name="pump", version="1", trust_pickle=True, progress=lambda _: None, **options
    )
    assert files == {}
    return sheet, graph


@pytest.mark.parametrize("kind", [LogisticRegression, RandomForestClassifier])
def test_a_pipeline_answers_as_before(tmp_path: Path, kind: Any) -> None:
    model = make_pipeline(StandardScaler(), kind(random_state=0)).fit(ROWS, KINDS)
    sheet, graph = imported(pickled(tmp_path, model))
    contract = sheet.contract
    assert contract.inputs == (TensorSpec("features", ("batch", 6), "float32"),)
    assert contract.outputs == (TensorSpec("scores", ("batch", 3), "float32"),)
    assert (contract.task, contract.labels) == ("classification", ("broken", "new", "worn"))
    scores = answers(contract, graph, {}, {"features": ROWS}).outputs["scores"]
    np.testing.assert_allclose(scores, model.predict_proba(ROWS), atol=1e-4)
    lineage = sheet.about.lineage
    assert (lineage["kind"], lineage["source"]) == ("scikit-learn", "pump.pkl")
    assert {"scikit-learn", "skl2onnx"} <= lineage["tools"].keys()
    assert "--trust-pickle" in lineage["command"]
    assert imported(pickled(tmp_path, model))[1] == graph


def test_labels_of_numbers_and_of_ones_own(tmp_path: Path) -> None:
    source = pickled(tmp_path, LogisticRegression().fit(ROWS, ROWS[:, 0] > 0))
    assert imported(source)[0].contract.labels == ("False", "True")
    assert imported(source, labels=["low", "high"])[0].contract.labels == ("low", "high")
    with pytest.raises(ConfigError, match="3 labels, where output 'scores' has 2"):
        imported(source, labels=["a", "b", "c"])


def test_a_regression_gives_its_number(tmp_path: Path) -> None:
    model = LinearRegression().fit(ROWS, ROWS @ np.arange(6))
    sheet, graph = imported(pickled(tmp_path, model))
    assert sheet.contract.task == "tensors"
    numbers = answers(sheet.contract, graph, {}, {"features": ROWS}).outputs["prediction"]
    np.testing.assert_allclose(numbers[:, 0], model.predict(ROWS), rtol=1e-3, atol=1e-3)


class Bomb:
    """What a pickle can do."""

    def __init__(self, fuse: Path) -> None:
        self.fuse = fuse

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.fuse,)


@pytest.mark.parametrize("name", ["pump.pkl", "pump.joblib", "pump.pickle", "pump.pt", "pump.pth"])
def test_a_pickle_is_not_read_without_permission(tmp_path: Path, name: str) -> None:
    pytest.importorskip("torch", reason="the extra `models` is not installed")
    fuse = tmp_path / "exploded"
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(fuse)))
    with pytest.raises(ConfigError, match=r"can run any program.*--trust-pickle"):
        import_model(str(tmp_path / name), name="pump", version="1", progress=lambda _: None)
    assert not fuse.exists()


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"weights": [1, 2]}, "holds a dict"),
        (LogisticRegression(), "was not trained"),
    ],
)
def test_what_is_no_trained_model(tmp_path: Path, held: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        imported(pickled(tmp_path, held))


def test_models_that_no_bundle_holds(tmp_path: Path) -> None:
    both = MultiOutputClassifier(LogisticRegression()).fit(ROWS, np.stack([KINDS, KINDS], axis=1))
    with pytest.raises(RejectedError):
        imported(pickled(tmp_path, both))
    with pytest.raises(RejectedError, match="without probabilities"):
        imported(pickled(tmp_path, LinearSVC().fit(ROWS, KINDS)))


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x04\x95"])
def test_a_broken_pickle_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pump.pkl").write_bytes(content)
    with pytest.raises(RejectedError, match=r"pump\.pkl: no pickle that can be read") as raised:
        imported(str(tmp_path / "pump.pkl"))
    assert "\n" not in str(raised.value)
