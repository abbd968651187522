"""Training a small classifier, the same way to the last bit each time on one machine."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_models.build.recipe import Progress
from edge_models.npy import Array

Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""A batch and a source of chance → a batch of the same shape."""


def seeded(seed: int) -> torch.Generator:
    """Make everything that follows repeatable, weights included, and return a generator for the rest."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def fit(
    net: nn.Module,
    inputs: Array,
    labels: NDArray[np.int64],
    *,
    epochs: int,
    chance: torch.Generator,
    progress: Progress,
    batch: int = 16,
    rate: float = 3e-3,
    smoothing: float = 0.05,
    augment: Augment | None = None,
) -> nn.Module:
    """Train `net` (inputs → logits) in place: AdamW under a one-cycle rate. Returns it in evaluation mode."""
    x, y = torch.from_numpy(np.array(inputs)), torch.from_numpy(np.array(labels))
    starts = [s for s in range(0, len(x), batch) if len(x) - s > 1]  # batch norm cannot learn from one sample
    optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, epochs * len(starts))
    net.train()
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(x), generator=chance)
        for start in starts:
            chosen = order[start : start + batch]
            seen = augment(x[chosen], chance) if augment else x[chosen]
            loss = nn.functional.cross_entropy(net(seen), y[chosen], label_smoothing=smoothing)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        progress(f"epoch {epoch} of {epochs}, loss {loss.item():.3f}")
    return net.eval()
