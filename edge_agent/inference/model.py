"""A model that runs: one bundle, one ONNX Runtime session, one contract held on the way in and out."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.inference.golden import GoldenReport, compare, compare_values
from edge_agent.inference.prepared import PreparedGraphs
from edge_agent.inference.providers import ONLY_CPU, Providers
from edge_agent.inference.session import ORT_ERRORS, check_fit, open_session
from edge_agent.records import Prediction
from edge_models.bundle import Bundle, golden_batch
from edge_models.contract import Contract
from edge_models.digests import Digest
from edge_models.errors import RejectedError
from edge_models.feeding import fed
from edge_models.session import one_line
from edge_models.steps import Before, prepare
from edge_models.tensors import TensorSpec

Tensors = dict[str, NDArray[Any]]
"""Input or output name → array, axis 0 the batch."""

SCORE_DIGITS = 6
"""Decimals of a score. A policy then sees 0.9 where float32 has 0.89999998, and the journal holds what it saw."""

_TOLERANCE = 1e-3
"""How far outside [0, 1] a score may be before it is no probability; int8 graphs round."""

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

    def __init__(self, bundle: Bundle, prepared: PreparedGraphs | None = None, providers: Providers = ONLY_CPU) -> None:
        """`prepared`: where copies of graphs lie that this machine made for itself, and on what they run; None: there
        are none, and `providers` is what it runs on.
        """
        self.contract: Contract = bundle.contract
        self.digest: Digest = bundle.digest
        self._golden = bundle.golden
        self._steps = prepare(bundle.contract, bundle.files)
        self._names = {spec.name for spec in bundle.contract.inputs}
        self._output_names = [spec.name for spec in bundle.contract.outputs]
        graph = bundle.graph
        self._session = open_session(graph, providers) if prepared is None else prepared.open(bundle.digest, graph)
        check_fit(self._session, bundle.contract)
        self.sample_s = self._warm()
        """Seconds that one sample took when the model was loaded."""

    @property
    def info(self) -> ModelInfo:
        """Name, version, digest, and what goes in and comes out."""
        c = self.contract
        return ModelInfo(c.name, c.version, self.digest, c.task, c.labels, c.inputs, c.outputs)

    @property
    def predicts(self) -> bool:
        """Whether agents can act on it: its predictions have a label."""
        return self.contract.task in ("classification", "reading")

    @property
    def before(self) -> Before | None:
        """Makes its inputs of a text; None where it takes tensors or pictures."""
        return self._steps.before

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """The contract's outputs for a batch.

        Raises `RejectedError` naming the input: what came, and what was wanted.
        """
        if inputs.keys() != self._names:
            raise RejectedError(self._wrong_names(inputs))
        for spec in self.contract.inputs:
            spec.check(inputs[spec.name])
        if self.contract.batched and len(self._names) > 1 and len({len(array) for array in inputs.values()}) > 1:
            sizes = ", ".join(f"{name}: {len(array)}" for name, array in inputs.items())
            raise RejectedError(f"the inputs' batches differ in size ({sizes})")
        try:
            outputs = self._session.run(self._output_names, dict(inputs))
        except ORT_ERRORS as error:
            raise RejectedError(f"model {self.contract.name!r} cannot run on this: {one_line(error)}") from None
        return dict(zip(self._output_names, outputs, strict=True))

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> list[Prediction]:
        """The prediction for each sample of a batch. Raises `RejectedError` as `run` does."""
        if self.contract.task == "reading":
            return self._read(inputs, self.run(inputs))
        if not self.predicts:
            raise RejectedError(f"model {self.contract.name!r} is for {self.contract.task}: it gives no prediction")
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
        parts, answers = [], []
        for inputs in self._golden_parts():
            outputs = self.run(inputs)
            parts.append(outputs[contract.main] if contract.batched else outputs[contract.main][np.newaxis])
            if contract.task == "reading":
                answers += [dict(reading.values) for reading in self._steps.readings(inputs, outputs)]
        here, there = np.concatenate(parts), golden.outputs[contract.main]
        if contract.task == "classification":
            truth = [contract.labels.index(label) for label in golden.truth]
            return compare(here, there, contract.golden_atol, truth)
        told = list(zip(answers, golden.answers or (), golden.truth, strict=True)) if answers else []
        return compare_values(here, there, contract.golden_atol, told)

    def _golden_parts(self) -> Iterator[Tensors]:
        """The golden inputs, as much of them at a time as the model takes."""
        golden, step = self._golden, golden_batch(self._golden.inputs) if self.contract.batched else 1
        for start in range(0, len(golden.truth), step):
            yield fed(golden.inputs, self.contract.batched, start, step)

    def _read(self, inputs: Mapping[str, NDArray[Any]], outputs: Tensors) -> list[Prediction]:
        readings = self._steps.readings(inputs, outputs)
        return [Prediction(each.label, round(each.score, SCORE_DIGITS), {}, dict(each.values)) for each in readings]

    def _warm(self) -> float:
        """Run one golden sample until nothing is done for the first time; the quickest run's seconds."""
        sample = fed(self._golden.inputs, self.contract.batched, 0)
        quickest = float("inf")
        for _ in range(_WARM_RUNS):
            start = time.perf_counter()
            outputs = self.run(sample)
            if self.contract.scores:
                self._scores(outputs)
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
