"""Parts that reference networks are put together from. All survive export and static quantization."""

import numpy as np
import torch
from torch import nn

from edge_models.npy import Array


class Standardise(nn.Module):  # type: ignore[misc] # torch's types are skipped
    """``(x - centre) / spread``, clipped to ±`limit`: pre-processing that travels inside the graph."""

    centre: torch.Tensor
    spread: torch.Tensor

    def __init__(self, centre: Array, spread: Array, limit: float) -> None:
        super().__init__()
        self.register_buffer("centre", torch.from_numpy(np.asarray(centre, dtype=np.float32)))
        self.register_buffer("spread", torch.from_numpy(np.asarray(spread, dtype=np.float32)))
        self.limit = limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, features)`` → the same."""
        return ((x - self.centre) / self.spread).clamp(-self.limit, self.limit)


class OneChannel(nn.Module):  # type: ignore[misc] # torch's types are skipped
    """``(batch, time)`` → ``(batch, 1, time)``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the channel axis."""
        return x.unsqueeze(1)


def convolution(channels_in: int, channels_out: int, width: int, stride: int = 1) -> nn.Sequential:
    """Convolution along time, batch norm (folded into it at export), ReLU."""
    return nn.Sequential(
        nn.Conv1d(channels_in, channels_out, width, stride, width // 2, bias=False),
        nn.BatchNorm1d(channels_out),
        nn.ReLU(),
    )


class SignedLog(nn.Module):  # type: ignore[misc] # torch's types are skipped
    """``sign(x) · log(1 + |x| / unit)``: makes 3 and 3,000 comparable, keeps the sign and what is near zero."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape → the same."""
        return torch.sign(x) * torch.log1p(x.abs() / self.unit)


class MeanAndMax(nn.Module):  # type: ignore[misc] # torch's types are skipped
    """``(batch, channels, time)`` → ``(batch, 2 × channels)``: how much there is of it, and whether it is there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool over time."""
        return torch.cat([x.mean(-1), x.amax(-1)], dim=1)
