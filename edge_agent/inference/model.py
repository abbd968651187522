"""A model that runs: one bundle, one ONNX Runtime session, one contract held on the way in and out."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.inference.golden import GoldenReport, compare
from edge_agent.inference.session import ORT_ERRORS, check_fit, one_line, open_session
from edge_agent.records import Prediction
from edge_models.bundle import Bundle
from edge_models.contract import Contract
from edge_models.digests import Digest
from edge_models.errors import RejectedError
from edge_models.tensors import TensorSpec

Tensors = dict[str, NDArray[Any]]
"""Input or output name → array, axis 0 the batch."""

SCORE_DIGITS = 6
"""Decimals of a score. A policy then sees 0.9 where float32 has 0.89999998, and the journal holds what it saw."""

_TOLERANCE = 1e-3
"""How far outside [0, 1] a score may be before it is no probability; int8 graphs round."""

_GOLDEN_BATCH = 16
"""Golden samples run together: bounds the memory that the check takes."""

_WARM_RUNS = 3


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What to call a model by, in records and on screens."""

    name: str
    version: str
    digest: Digest
    task: str
    labels: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Model:
    """A bundle, loaded and warm; safe to call from many threads at once.

    Raises `RejectedError` where the graph does not load, does not fit its contract, or does not run.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.contract: Contract = bundle.contract
        self.digest: Digest = bundle.digest
        self._golden = bundle.golden
        self._names = {spec.name for spec in bundle.contract.inputs}
        self._output_names = [spec.name for spec in bundle.contract.outputs]
        self._session = open_session(bundle.graph)
        check_fit(self._session, bundle.contract)
        self.sample_s = self._warm()
        """Seconds that one sample took when the model was loaded."""

    @property
    def info(self) -> ModelInfo:
        """Name, version, digest, and what goes in and comes out."""
        c = self.contract
        return ModelInfo(c.name, c.version, self.digest, c.task, c.labels, c.inputs, c.outputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """The contract's outputs for a batch.

        Raises `RejectedError` naming the input: what came, and what was wanted.
        """
        if inputs.keys() != self._names:
            raise RejectedError(self._wrong_names(inputs))
        for spec in self.contract.inputs:
            spec.check(inputs[spec.name])
        if len(self._names) > 1 and len({len(array) for array in inputs.values()}) > 1:
            sizes = ", ".join(f"{name}: {len(array)}" for name, array in inputs.items())
            raise RejectedError(f"the inputs' batches differ in size ({sizes})")
        try:
            outputs = self._session.run(self._output_names, dict(inputs))
        except ORT_ERRORS as error:
            raise RejectedError(f"model {self.contract.name!r} cannot run on this: {one_line(error)}") from None
        return dict(zip(self._output_names, outputs, strict=True))

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> list[Prediction]:
        """The prediction for each sample of a batch. Raises `RejectedError` as `run` does."""
        scores = self._scores(self.run(inputs))
        labels = self.contract.labels
        rows = scores.astype(np.float64).clip(0.0, 1.0).round(SCORE_DIGITS).tolist()
        # The label is the argmax before rounding: rounding must not make a tie of what was none.
        tops = scores.argmax(axis=1).tolist()
        return [
            Prediction(labels[top], row[top], dict(zip(labels, row, strict=True)))
            for top, row in zip(tops, rows, strict=True)
        ]

    def check_golden(self) -> GoldenReport:
        """Run the bundle's held-out samples and compare with what its maker's machine answered.

        Raises `RejectedError` where the model cannot run them at all.
        """
        contract, golden = self.contract, self._golden
        parts = []
        for start in range(0, len(golden.truth), _GOLDEN_BATCH):
            part = {name: array[start : start + _GOLDEN_BATCH] for name, array in golden.inputs.items()}
            parts.append(self.run(part)[contract.scores])
        truth = [contract.labels.index(label) for label in golden.truth]
        return compare(np.concatenate(parts), golden.outputs[contract.scores], contract.golden_atol, truth)

    def _warm(self) -> float:
        """Run one golden sample until nothing is done for the first time; the quickest run's seconds."""
        sample = {name: array[:1] for name, array in self._golden.inputs.items()}
        quickest = float("inf")
        for _ in range(_WARM_RUNS):
            start = time.perf_counter()
            self._scores(self.run(sample))
            quickest = min(quickest, time.perf_counter() - start)
        return quickest

    def _scores(self, outputs: Tensors) -> NDArray[np.float32]:
        """The scores output, when it is one row of probabilities a sample."""
        scores = outputs[self.contract.scores]
        if scores.ndim != 2 or scores.shape[1] != len(self.contract.labels):
            raise RejectedError(f"model {self.contract.name!r} gave scores of shape {scores.shape}")
        # Written so that NaN, which compares false, is refused too.
        if not (scores.min() >= -_TOLERANCE and scores.max() <= 1 + _TOLERANCE):
            raise RejectedError(f"model {self.contract.name!r} gave scores that are no probabilities")
        return scores

    def _wrong_names(self, inputs: Mapping[str, object]) -> str:
        came = ", ".join(sorted(inputs)) or "none"
        return f"model {self.contract.name!r}: came the inputs {came}, wanted {', '.join(sorted(self._names))}"
