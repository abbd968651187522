"""A pickled scikit-learn model, where it is trusted."""

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from edge_models.build.importing.checks import check_size
from edge_models.build.importing.found import Found, digest_of_files
from edge_models.build.importing.graphs import keep_outputs, rename, set_opset
from edge_models.build.importing.probe import open_quietly
from edge_models.build.importing.sklearn_columns import ML, Table, by_place, join_columns, table_of, take_any_category
from edge_models.build.importing.sklearn_mended import mended
from edge_models.build.importing.tasks import SCORES
from edge_models.build.importing.wanted import Wanted
from edge_models.build.recipe import Progress, needs_extra
from edge_models.errors import ConfigError, RejectedError

TOOLS = ("joblib", "scikit-learn", "skl2onnx")

FEATURES = "features"

ML_OPSET = 3
"""Of scikit-learn's own operators: what ONNX Runtime knows since 1.11, and the most that skl2onnx writes for some."""

ROWS, CLOSE = 200, 0.98
"""Rows by chance that graph and model must agree on, and the share of them: float32 may fall on the other side of a
tree's threshold."""

DANGER = (
    "a pickle can run any program while it is read: pass --trust-pickle for one that you made yourself or whose maker "
    "you trust as you trust their programs"
)


def from_sklearn(path: Path, wanted: Wanted, progress: Progress) -> Found:
    """The pipeline in a pickle as a graph that takes ``features`` and gives ``scores`` (or ``prediction``).

    Raises `ConfigError` without permission, and where the file holds no trained scikit-learn model; `RejectedError`
    where skl2onnx can't convert it, or its graph answers otherwise than the model.
    """
    if not wanted.trust_pickle:
        raise ConfigError(f"{path.name}: {DANGER}")
    check_size(path.stat().st_size, path.name)
    with needs_extra():
        import skl2onnx  # noqa: F401, PLC0415 - takes seconds
        import sklearn.base  # noqa: PLC0415
    progress(f"reading {path.name}")
    estimator = _load(path, progress)
    if not isinstance(estimator, sklearn.base.BaseEstimator):
        raise ConfigError(f"{path.name} holds a {type(estimator).__name__}, no scikit-learn model or pipeline")
    estimator = getattr(estimator, "best_estimator_", estimator)  # of a search the model that it found
    width = getattr(estimator, "n_features_in_", None)
    if not isinstance(width, int):
        raise ConfigError(f"{path.name}: the {type(estimator).__name__} was not trained on a table, or not at all")
    table = table_of(estimator, width)
    progress("converting")
    gives = hasattr(estimator, "predict_proba")
    model = _convert(estimator, table, wanted.opset, gives)
    _check_agreement(model, estimator, table, gives)
    return Found(
        "scikit-learn",
        path.name,
        digest_of_files([path], path.parent),
        model,
        TOOLS,
        task="classification" if gives else None,
        labels=_labels(estimator) if gives else (),
        columns=table.names,
        categories=table.categories,
    )


def _load(path: Path, progress: Progress) -> Any:
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            import joblib  # noqa: PLC0415

            loaded = joblib.load(path)  # reads plain pickles too
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{path.name} needs a package or class that is not here: {error}") from None
    except Exception as error:  # noqa: BLE001 - a pickle raises whatever it holds
        raise RejectedError(f"{path.name}: no pickle that can be read: {' '.join(str(error).split())[:200]}") from None
    if said:
        progress(" ".join(str(said[0].message).split()))
    return loaded


def _convert(estimator: Any, table: Table, opset: int, gives_scores: bool) -> Any:
    from skl2onnx import convert_sklearn  # noqa: PLC0415
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType  # noqa: PLC0415

    given = [(FEATURES, FloatTensorType([None, len(table.columns)]))]
    if table.split:
        estimator = by_place(estimator)
        given = [
            (f"column_{place}", (StringTensorType if column.texts else FloatTensorType)([None, 1]))
            for place, column in enumerate(table.columns)
        ]
    options = {id(estimator): {"zipmap": False}} if gives_scores else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = convert_sklearn(
                estimator,
                initial_types=given,
                target_opset={"": opset, ML: ML_OPSET},
                options=options,
                custom_conversion_functions=mended(),
            )
    except Exception as error:  # noqa: BLE001 - skl2onnx raises whatever a model leads it to
        said = " ".join(str(error).split())[:300]
        raise RejectedError(f"skl2onnx can't convert this {type(estimator).__name__}: {said}") from None
    set_opset(model, opset)  # what its nodes were written for, not the least that they need
    names = [value.name for value in model.graph.output]
    keep_outputs(model, [names[1] if gives_scores else names[0]])
    rename(model, {model.graph.output[0].name: SCORES if gives_scores else "prediction"})
    if table.split:
        join_columns(model, table, [name for name, _ in given], FEATURES)
    take_any_category(model)
    return model


def _check_agreement(model: Any, estimator: Any, table: Table, gives_scores: bool) -> None:
    rows, columns = table.draw(ROWS, np.random.default_rng(0))
    asked = _as_trained(table, columns)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = np.asarray(estimator.predict_proba(asked) if gives_scores else estimator.predict(asked))
    except Exception as error:  # noqa: BLE001 - a model raises whatever a table it was not trained on leads it to
        said = " ".join(str(error).split())[:200]
        raise RejectedError(
            "the model takes a table of something else than numbers and what its encoders know: put a OneHotEncoder or "
            f"an OrdinalEncoder before what takes categories by itself ({said})"
        ) from None
    ours = np.asarray(open_quietly(model.SerializeToString()).run(None, {FEATURES: rows})[0])
    if theirs.dtype.kind not in "fiub":
        raise RejectedError("the model predicts texts without probabilities: train it with them (probability=True)")
    theirs, ours = theirs.reshape(ROWS, -1), ours.reshape(ROWS, -1)
    if theirs.shape != ours.shape:
        raise RejectedError(f"the graph gives {ours.shape[1]} numbers a sample, the model {theirs.shape[1]}")
    same = np.isclose(ours, theirs, rtol=1e-3, atol=1e-4).all(axis=1).mean()
    if same < CLOSE:
        raise RejectedError(f"skl2onnx's graph answers {1 - same:.0%} of rows by chance otherwise than the model does")


def _as_trained(table: Table, columns: list[Any]) -> Any:
    """The table as the model takes it: by names where it is trained with names."""
    if not table.split:
        return np.stack(columns, axis=1)
    if not table.named:
        return np.stack([np.asarray(each, dtype=object) for each in columns], axis=1)
    pandas = importlib.import_module("pandas")
    return pandas.DataFrame({each.name: values for each, values in zip(table.columns, columns, strict=True)})


def _labels(estimator: Any) -> tuple[str, ...]:
    classes = estimator.classes_
    if isinstance(classes, list):
        raise RejectedError("the model predicts several things at once: import one model for each")
    return tuple(str(label) for label in classes)
