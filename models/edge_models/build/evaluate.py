"""How good a graph is: what it answers on a split, and how that compares with the truth."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge_models.build.recipe import Split
from edge_models.npy import Array

CHUNK_SAMPLES = 256
"""Samples in one run: enough to be quick, few enough to stay small in memory."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Measures of a classifier on held-out samples."""

    accuracy: float
    macro_f1: float
    """The mean over labels of F1: a rare label counts as much as a common one."""


def open_session(graph: bytes) -> ort.InferenceSession:
    """A session on one thread, as a site runs it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def answers(graph: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every output of `graph` on these inputs."""
    session = open_session(graph)
    names = [output.name for output in session.get_outputs()]
    samples = len(next(iter(inputs.values())))
    chunks = []
    for start in range(0, samples, CHUNK_SAMPLES):
        feed = {name: np.ascontiguousarray(array[start : start + CHUNK_SAMPLES]) for name, array in inputs.items()}
        chunks.append(session.run(names, feed))
    return {name: np.concatenate([chunk[i] for chunk in chunks]) for i, name in enumerate(names)}


def predicted(graph: bytes, split: Split, scores: str) -> NDArray[np.int64]:
    """The index of the likeliest label of each sample."""
    return np.asarray(np.argmax(answers(graph, split.inputs)[scores], axis=-1), dtype=np.int64)


def quality(labels: NDArray[np.int64], truth: NDArray[np.int64]) -> Quality:
    """How well `labels` agree with the truth. A label that occurs in neither is left out of the mean."""
    f1 = []
    for label in np.union1d(labels, truth):
        right = np.sum((labels == label) & (truth == label))
        f1.append(2 * right / (np.sum(labels == label) + np.sum(truth == label)))
    return Quality(float(np.mean(labels == truth)), float(np.mean(f1)))
