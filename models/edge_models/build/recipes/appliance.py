"""Appliance power signatures: which of ten kinds of appliance drew this power, from an hour of a sub-meter's readings.

The data are the UCR archive's ACSF1, made of ACS-F1 (Gisler and others, 2013), which recorded each of a hundred
appliances for two hours; the archive's halves are taken to be one hour of each. The archive gives 1,460 nameless
numbers a recording and classes 0 to 9. They are 365 steps of four quantities in turn (the autocorrelation at lag 4 is
0.95), scaled together: reactive power, real power, mains voltage, current. With the voltage taken as 230 V, real power
comes out as voltage times current for heaters (1,428 W at 6.21 A), which shows that the reading is right; and the watts
tell which class is which appliance, where the archive's text lists names in another order.
"""

import numpy as np
import torch
from torch import nn

from edge_models.build.export import classifier_to_onnx
from edge_models.build.layers import MeanAndMax, SignedLog, convolution
from edge_models.build.recipe import Data, Progress, Recipe, Source, Split, Version, wheel_file
from edge_models.build.train import fit, seeded
from edge_models.digests import digest_of
from edge_models.npy import Array
from edge_models.tensors import TensorSpec

LABELS = (
    "fridge",
    "television",
    "laptop",
    "coffee-machine",
    "computer",
    "lamp",
    "hifi",
    "printer",
    "microwave",
    "phone-charger",
)
"""Of the archive's classes 0 to 9."""

STEPS = 365
POWER = TensorSpec(
    "power",
    ("batch", 2 * STEPS),
    "float32",
    unit="W, then VAr",
    description="an hour at a reading every 10 s: 365 of real power, then 365 of reactive power",
)
SCORES = TensorSpec("probabilities", ("batch", len(LABELS)), "float32")
MAINS_V = 230.0
FAINT_W = 2.0
"""What is small for a power reading. Chosen by cross-validation inside the training split."""


def load() -> Data:
    """The archive's own split, in watts."""
    raw = [wheel_file("aeon", f"datasets/data/ACSF1/ACSF1_{part}.ts").read_bytes() for part in ("TRAIN", "TEST")]
    train, held_out = (_split(part.decode("utf-8")) for part in raw)
    return Data(train, train, held_out, digest_of(b"".join(raw)))


def _split(text: str) -> Split:
    """One .ts file: after ``@data``, a recording a line, values with commas, a colon, the class."""
    lines = [line.rpartition(":") for line in text.partition("@data\n")[2].splitlines() if line]
    values = np.array([line[0].split(",") for line in lines], dtype=np.float64)
    return Split({POWER.name: _watts(values)}, np.array([int(line[2]) for line in lines]))


def _watts(scaled: Array) -> Array:
    """``(recordings, 1460)`` in the archive's scale → ``(recordings, 730)`` float32, W then VAr."""
    reactive, real, voltage, current = np.moveaxis(scaled.reshape(-1, STEPS, 4), 2, 0)
    # Amperes are next to nothing beside volts, so the current shows where zero is.
    zero = np.median(current, axis=1, keepdims=True)
    volts = np.mean(voltage, axis=1, keepdims=True) - zero
    watts = np.concatenate([real - zero, reactive - zero], axis=1) / volts * MAINS_V
    return np.asarray(watts, dtype=np.float32)


class Quantities(nn.Module):  # type: ignore[misc] # torch's types are skipped
    """``(batch, 730)`` → ``(batch, 2, 365)``, or ``(batch, 1, 365)`` of real power alone."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, power: torch.Tensor) -> torch.Tensor:
        """A channel a quantity."""
        return power.reshape(-1, 2, STEPS)[:, : self.count]


def rolled(power: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """The same hours begun at another moment: no appliance knows when the meter started."""
    shift = torch.randint(0, STEPS, (len(power), 1), generator=chance)
    moment = (torch.arange(STEPS) + shift) % STEPS
    return torch.cat([half.gather(1, moment) for half in power.split(STEPS, dim=1)], dim=1)


def trained(train: Split, progress: Progress, *, quantities: int, channels: int, epochs: int) -> bytes:
    """The float graph of three convolutions over the logarithm of so many quantities."""
    chance = seeded(1)
    net = nn.Sequential(
        Quantities(quantities),
        SignedLog(FAINT_W),
        convolution(quantities, channels, 5),
        convolution(channels, channels, 5, stride=2),
        convolution(channels, channels, 5, stride=2),
        MeanAndMax(),
        nn.Dropout(0.4),
        nn.Linear(2 * channels, len(LABELS)),
    )
    power = train.inputs[POWER.name]
    fit(net, power, train.labels, epochs=epochs, chance=chance, progress=progress, augment=rolled)
    return classifier_to_onnx(net, [POWER], SCORES)


RECIPE = Recipe(
    name="appliance",
    summary="Tells which of ten kinds of appliance drew this hour of power.",
    source=Source(
        name="ACSF1 (UCR time series archive, from ACS-F1)",
        source="C. Gisler and others, 2013, as shipped in the wheel of aeon",
        licence="BSD-3-Clause (aeon's wheel); ACS-F1 and the UCR archive ask to be cited",
        about="Ten appliances of each of ten kinds, an hour at a reading every 10 s, twice; scaled back to watts.",
        split="The archive's: an hour of each of 100 appliances to train and calibrate on, another hour held out.",
    ),
    load=load,
    inputs=(POWER,),
    outputs=(SCORES,),
    labels=LABELS,
    scores=SCORES.name,
    golden_samples=40,
    golden_atol=0.02,
    limits=(
        "The held-out hours are of the appliances it was trained on: on appliances it has never seen, expect less "
        "(version 2: 0.81 accuracy in five-fold cross-validation inside the training split).",
        "Watts are found from the archive's scaled values by taking the mains as 230 V.",
        "One appliance a meter: it does not take a sum of several apart.",
    ),
    versions={
        "1": Version(
            "A first model: real power only, half the channels, trained on every second recording.",
            lambda train: train.take(slice(0, None, 2)),
            lambda train, progress: trained(train, progress, quantities=1, channels=16, epochs=100),
        ),
        "2": Version(
            "Real and reactive power, all channels, retrained on all recordings.",
            lambda train: train,
            lambda train, progress: trained(train, progress, quantities=2, channels=32, epochs=200),
        ),
    },
)
