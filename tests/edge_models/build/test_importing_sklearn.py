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

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC

from edge_models.build.data import load_samples
from edge_models.build.golden import made_up
from edge_models.build.importing import import_model
from edge_models.build.run import answers
from edge_models.build.workdir import Sheet
from edge_models.columns import Categories
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


@pytest.mark.parametrize("kind", [LogisticRegression, RandomForestClassifier, HistGradientBoostingClassifier])
def test_a_pipeline_answers_as_before(tmp_path: Path, kind: Any) -> None:
    model = make_pipeline(StandardScaler(), kind(random_state=0)).fit(ROWS, KINDS)
    sheet, graph = imported(pickled(tmp_path, model))
    contract = sheet.contract
    assert contract.inputs == (TensorSpec("features", ("batch", 6), "float32"),)
    assert contract.outputs == (TensorSpec("scores", ("batch", 3), "float32"),)
    assert (contract.task, contract.labels) == ("classification", ("broken", "new", "worn"))
    scores = answers(contract, graph, {}, {"features": ROWS}).outputs["scores"]
    np.testing.assert_allclose(scores, model.predict_proba(ROWS), atol=1e-3)
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


pd = pytest.importorskip("pandas")

CHANCE = np.random.default_rng(6)
FRAME = pd.DataFrame(
    {
        "machine": [f"pump {number}" for number in range(300)],
        "speed": CHANCE.normal(900, 200, 300),
        "mode": CHANCE.choice(["auto", "manual", "service"], 300),
        "load %": CHANCE.normal(40, 10, 300),
        "gear": CHANCE.choice([1, 2, 5], 300),
        "gate": CHANCE.choice(["open", "shut"], 300),
    }
)
WORN = np.where((FRAME["mode"] == "manual") & (FRAME["speed"] > 800) | (FRAME["gear"] == 5), "worn", "ok")
"""A pump is worn by what its columns say together, so that a column taken for another would show."""


def asked(contract: Any, graph: bytes, frame: Any, tmp_path: Path) -> Any:
    """The scores of a table that has its columns in another order, and others among them."""
    path = tmp_path / "asked.csv"
    frame[[*reversed(list(frame.columns))]].to_csv(path, index=False)
    samples = load_samples(path, contract, {})
    return answers(contract, graph, {}, samples.inputs).outputs["scores"]


def test_columns_of_a_frame_are_taken_by_name(tmp_path: Path) -> None:
    frame = FRAME[["speed", "load %", "gear"]]
    model = make_pipeline(StandardScaler(), RandomForestClassifier(random_state=0)).fit(frame, WORN)
    sheet, graph = imported(pickled(tmp_path, model))
    spec = sheet.contract.inputs[0]
    assert (spec.columns, spec.categories, spec.description) == (("speed", "load %", "gear"), (), "")
    scores = asked(sheet.contract, graph, FRAME, tmp_path)
    assert (np.abs(scores - model.predict_proba(frame)).max(axis=1) < 1e-3).mean() > 0.98


def preparing(**encoder: Any) -> ColumnTransformer:
    """What real pipelines begin with; the machine's name is left out."""
    return ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["load %", "speed"]),
            ("kinds", OneHotEncoder(**encoder), ["gate", "gear", "mode"]),
        ]
    )


@pytest.mark.parametrize(("handles", "other"), [("ignore", True), ("error", False)])
def test_columns_by_name_and_categories(tmp_path: Path, handles: str, other: bool) -> None:
    model = make_pipeline(preparing(handle_unknown=handles), LogisticRegression(max_iter=1000)).fit(FRAME, WORN)
    sheet, graph = imported(pickled(tmp_path, model))
    contract, spec = sheet.contract, sheet.contract.inputs[0]
    assert spec.columns == ("speed", "mode", "load %", "gear", "gate")
    assert spec.categories == (
        Categories("mode", ("auto", "manual", "service"), other),
        Categories("gate", ("open", "shut"), other),
    )
    assert contract.batched
    np.testing.assert_allclose(asked(contract, graph, FRAME, tmp_path), model.predict_proba(FRAME), atol=1e-4)
    assert imported(pickled(tmp_path, model))[1] == graph
    invented = made_up(contract, 20)
    contract.inputs[0].check(invented.inputs["features"])
    strange = FRAME[:2].assign(mode=["off", "auto"])
    if other:
        np.testing.assert_allclose(asked(contract, graph, strange, tmp_path), model.predict_proba(strange), atol=1e-4)
    else:
        with pytest.raises(RejectedError, match="line 2, column 'mode': 'off' is not one of auto, manual, service"):
            asked(contract, graph, strange, tmp_path)


def test_what_fills_in_missing_texts_is_left_out(tmp_path: Path) -> None:
    kinds = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer([("n", numbers, ["speed", "gear"]), ("k", kinds, ["mode", "gate"])])
    model = make_pipeline(columns, RandomForestClassifier(random_state=0)).fit(FRAME, WORN)
    sheet, graph = imported(pickled(tmp_path, model))
    scores = asked(sheet.contract, graph, FRAME, tmp_path)
    assert (np.abs(scores - model.predict_proba(FRAME)).max(axis=1) < 1e-3).mean() > 0.98


def test_categories_without_names_and_without_a_transformer_of_columns(tmp_path: Path) -> None:
    table = FRAME[["mode", "gate"]].to_numpy(dtype=object)
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    model = make_pipeline(encoder, RandomForestClassifier(random_state=0)).fit(table, WORN)
    sheet, graph = imported(pickled(tmp_path, model))
    assert sheet.contract.inputs[0].columns == ("x0", "x1")
    frame = pd.DataFrame(table, columns=["x0", "x1"])
    np.testing.assert_allclose(asked(sheet.contract, graph, frame, tmp_path), model.predict_proba(table), atol=1e-4)


def test_of_a_search_the_model_that_it_found(tmp_path: Path) -> None:
    pipeline = make_pipeline(preparing(handle_unknown="ignore"), LogisticRegression(max_iter=1000))
    model = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0]}, cv=2).fit(FRAME, WORN)
    sheet, graph = imported(pickled(tmp_path, model))
    np.testing.assert_allclose(asked(sheet.contract, graph, FRAME, tmp_path), model.predict_proba(FRAME), atol=1e-4)


@pytest.mark.parametrize(
    ("columns", "frame", "said"),
    [
        (
            ColumnTransformer([("t", TfidfVectorizer(), "machine"), ("n", StandardScaler(), ["speed"])]),
            FRAME,
            r"column 'machine' is free text \(for a TfidfVectorizer\).* make numbers of it before the pipeline",
        ),
        (
            ColumnTransformer([("k", OneHotEncoder(), ["mode"]), ("n", StandardScaler(), ["speed"])]),
            FRAME.assign(mode=FRAME["mode"].astype(object).mask(FRAME["mode"] == "auto", None)),
            "column 'mode' has texts and missing values among its categories: .*SimpleImputer",
        ),
        (
            ColumnTransformer([("k", OneHotEncoder(), ["speed"])]),
            FRAME[["speed"]],
            "skl2onnx can't convert this Pipeline: .*not an int64",
        ),
    ],
)
def test_columns_that_no_bundle_takes(tmp_path: Path, columns: Any, frame: Any, said: str) -> None:
    model = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(frame, WORN)
    with pytest.raises(RejectedError, match=said) as raised:
        imported(pickled(tmp_path, model))
    assert "\n" not in str(raised.value)


def test_trees_that_take_categories_by_themselves(tmp_path: Path) -> None:
    frame = FRAME[["speed", "mode"]].assign(mode=FRAME["mode"].astype("category"))
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=5).fit(frame, WORN)
    with pytest.raises(RejectedError, match="put a OneHotEncoder or an OrdinalEncoder before what takes categories"):
        imported(pickled(tmp_path, model))


def test_a_forest_that_knows_no_labels_gives_what_it_predicts(tmp_path: Path) -> None:
    model = IsolationForest(n_estimators=20, random_state=0).fit(ROWS)
    sheet, graph = imported(pickled(tmp_path, model))
    assert sheet.contract.task == "tensors"
    seen = answers(sheet.contract, graph, {}, {"features": ROWS}).outputs["prediction"]
    np.testing.assert_array_equal(seen[:, 0], model.predict(ROWS))


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
