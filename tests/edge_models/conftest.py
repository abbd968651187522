"""A small bundle, made of parts that need no training."""

from pathlib import Path

import numpy as np
import pytest

from edge_models.bundle import Bundle, Golden, read_bundle, write_bundle
from edge_models.contract import Contract
from edge_models.tensors import TensorSpec


@pytest.fixture(scope="session")
def sample_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a sound bundle. Its graph is noise: reading a bundle does not run it."""
    rng = np.random.default_rng(7)
    contract = Contract(
        name="pump",
        version="1",
        task="classification",
        inputs=(TensorSpec("sensors", ("batch", 3), "float32", unit="mm/s", description="three axes"),),
        outputs=(TensorSpec("probabilities", ("batch", 2), "float32"),),
        labels=("normal", "anomaly"),
        scores="probabilities",
        golden_atol=0.03,
    )
    golden = Golden(
        inputs={"sensors": rng.random((4, 3), dtype=np.float32)},
        outputs={"probabilities": rng.random((4, 2), dtype=np.float32)},
        truth=("normal", "normal", "anomaly", "normal"),
    )
    path = tmp_path_factory.mktemp("bundle") / "pump.bundle"
    card = {"name": "pump", "summary": "a pump"}
    write_bundle(path, contract=contract, graph=rng.bytes(700), golden=golden, card=card)
    return path


@pytest.fixture(scope="session")
def sample(sample_path: Path) -> Bundle:
    """A sound bundle."""
    return read_bundle(sample_path)
