"""A pickled scikit-learn model, where it is trusted."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from edge_models.build.importing.checks import check_size
from edge_models.build.importing.found import Found, digest_of_files
from edge_models.build.importing.graphs import keep_outputs, rename
from edge_models.build.importing.probe import open_quietly
from edge_models.build.importing.tasks import SCORES
from edge_models.build.importing.wanted import Wanted
from edge_models.build.recipe import Progress, needs_extra
from edge_models.errors import ConfigError, RejectedError

TOOLS = ("joblib", "scikit-learn", "skl2onnx")

FEATURES = "features"

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
    width = getattr(estimator, "n_features_in_", None)
    if not isinstance(width, int):
        raise ConfigError(f"{path.name}: the {type(estimator).__name__} was not trained on numbers, or not at all")
    progress("converting")
    gives = hasattr(estimator, "predict_proba")
    model = _convert(estimator, width, wanted.opset, gives)
    _check_agreement(model, estimator, width, gives)
    names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    return Found(
        "scikit-learn",
        path.name,
        digest_of_files([path], path.parent),
        model,
        TOOLS,
        task="classification" if gives else None,
        labels=_labels(estimator) if gives else (),
        descriptions={FEATURES: ", ".join(names)} if names else {},
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


def _convert(estimator: Any, width: int, opset: int, gives_scores: bool) -> Any:
    from skl2onnx import to_onnx  # noqa: PLC0415
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

    options = {id(estimator): {"zipmap": False}} if gives_scores else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = to_onnx(
                estimator,
                initial_types=[(FEATURES, FloatTensorType([None, width]))],
                target_opset=opset,
                options=options,
            )
    except Exception as error:  # noqa: BLE001 - skl2onnx raises whatever a model leads it to
        said = " ".join(str(error).split())[:300]
        raise RejectedError(f"skl2onnx can't convert this {type(estimator).__name__}: {said}") from None
    names = [value.name for value in model.graph.output]
    keep_outputs(model, [names[1] if gives_scores else names[0]])
    rename(model, {model.graph.output[0].name: SCORES if gives_scores else "prediction"})
    return model


def _check_agreement(model: Any, estimator: Any, width: int, gives_scores: bool) -> None:
    rows = np.random.default_rng(0).standard_normal((ROWS, width)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = np.asarray(estimator.predict_proba(rows) if gives_scores else estimator.predict(rows))
    ours = np.asarray(open_quietly(model.SerializeToString()).run(None, {FEATURES: rows})[0])
    if theirs.dtype.kind not in "fiub":
        raise RejectedError("the model predicts texts without probabilities: train it with them (probability=True)")
    theirs, ours = theirs.reshape(ROWS, -1), ours.reshape(ROWS, -1)
    if theirs.shape != ours.shape:
        raise RejectedError(f"the graph gives {ours.shape[1]} numbers a sample, the model {theirs.shape[1]}")
    same = np.isclose(ours, theirs, rtol=1e-3, atol=1e-4).all(axis=1).mean()
    if same < CLOSE:
        raise RejectedError(f"skl2onnx's graph answers {1 - same:.0%} of rows by chance otherwise than the model does")


def _labels(estimator: Any) -> tuple[str, ...]:
    classes = estimator.classes_
    if isinstance(classes, list):
        raise RejectedError("the model predicts several things at once: import one model for each")
    return tuple(str(label) for label in classes)
