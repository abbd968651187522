"""Drawing the golden samples: held-out, a share of each class, by chance and never for being right."""

import numpy as np
from numpy.typing import NDArray

from edge_models.build.evaluate import answers
from edge_models.build.recipe import Split
from edge_models.bundle import Golden

SEED = 20


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


def golden(graph: bytes, held_out: Split, labels: tuple[str, ...], samples: int) -> Golden:
    """Golden samples of `held_out` with what `graph`, the one that ships, answers to them."""
    drawn = held_out.take(draw(held_out.labels, samples))
    truth = tuple(labels[index] for index in drawn.labels)
    return Golden(drawn.inputs, answers(graph, drawn.inputs), truth)
