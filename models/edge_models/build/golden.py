"""Drawing the golden samples: held-out, a share of each class, by chance and never for being right."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_models.build.run import answers
from edge_models.build.samples import Samples
from edge_models.bundle import Golden, golden_batch
from edge_models.contract import Contract
from edge_models.npy import Array
from edge_models.tensors import TensorSpec

SEED = 20

OPEN_AXIS = 4
"""The size of an open axis where inputs are made up."""


def draw(labels: NDArray[np.int64], samples: int) -> NDArray[np.int64]:
    """Which `samples` of these to take: as many of each class as its share of the whole, at least one, shuffled."""
    chance = np.random.default_rng(SEED)
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * samples / len(labels)
    shares = np.maximum(np.floor(exact).astype(int), 1)
    for rest in np.argsort(shares - exact, kind="stable")[: max(samples - int(shares.sum()), 0)]:
        shares[rest] += 1
    chosen = [chance.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, shares, strict=True)]
    return chance.permutation(np.concatenate(chosen))


def golden(contract: Contract, graph: bytes, files: Mapping[str, bytes], held_out: Samples, samples: int) -> Golden:
    """Golden samples of `held_out` with what `graph`, the one that ships, answers to them."""
    classes = np.zeros(len(held_out), np.int64)
    if contract.task == "classification" and held_out.truth is not None:
        classes = np.array([contract.labels.index(label) for label in held_out.truth], np.int64)
    drawn = held_out.take(draw(classes, min(samples, len(held_out))))
    came = answers(contract, graph, files, drawn.inputs, golden_batch(drawn.inputs))
    read = tuple(dict(each.values) for each in came.readings) if contract.task == "reading" else None
    truth = drawn.truth
    if truth is None and contract.task == "classification":  # nothing is known: what it answers has to do
        truth = tuple(contract.labels[top] for top in came.outputs[contract.scores].argmax(axis=-1))
    return Golden(drawn.inputs, came.outputs, truth or (None,) * len(drawn), read)


def made_up(contract: Contract, samples: int) -> Samples:
    """Inputs by chance, where there are no data: they prove that a CPU computes the same, and nothing else."""
    chance = np.random.default_rng(SEED)
    shapes = {spec.name: _sized(spec, contract.batched) for spec in contract.inputs}
    drawn = {spec.name: _noise(chance, spec, (samples, *shapes[spec.name])) for spec in contract.inputs}
    for spec in contract.inputs:
        for each in spec.categories:
            numbers = chance.integers(0, len(each.texts), samples)
            drawn[spec.name][:, spec.columns.index(each.column)] = numbers
    return Samples(drawn)


def _sized(spec: TensorSpec, batched: bool) -> tuple[int, ...]:
    axes = spec.shape[1:] if batched else spec.shape
    return tuple(axis if isinstance(axis, int) else OPEN_AXIS for axis in axes)


def _noise(chance: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    kind = np.dtype(spec.dtype).kind
    if kind == "f":
        return chance.standard_normal(shape).astype(spec.dtype)
    if kind == "b":
        return chance.integers(0, 2, shape).astype(bool)
    most = 256 if spec.dtype == "uint8" else 2  # an index may be into a small table
    return chance.integers(0, most, shape).astype(spec.dtype)
