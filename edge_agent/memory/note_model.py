"""The model that finds a site's notes: a bundle of its own in the data folder, so that no release need carry it."""

from pathlib import Path

import numpy as np

from edge_agent.inference.model import Model
from edge_agent.memory.notes import Embedder, Vector
from edge_models.bundle import read_bundle
from edge_models.durable import replace
from edge_models.errors import ConfigError, RejectedError

FILE = "notes.bundle"
"""In the site's data folder."""


def keep_note_model(data: Path, bundle: Path) -> Embedder:
    """Take this bundle for the site's notes from now on: it is copied whole, or not at all.

    Raises `ConfigError` where it can't be read or written; `RejectedError` where it is damaged, makes no vectors of
    texts, or this machine does not get the answers that its maker got.
    """
    try:
        content = bundle.read_bytes()
    except OSError as error:
        raise ConfigError(f"{bundle}: {error.strerror}") from None
    model = _model(content, bundle)
    report = model.check_golden()
    if not report.passed:
        raise RejectedError(f"{bundle}: {report}")
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace(data / FILE, content)
    except OSError as error:
        raise ConfigError(f"{data / FILE}: {error.strerror}") from None
    return embedder_of(model)


def note_model(data: Path) -> Embedder:
    """The model of the site's notes, every byte of it verified.

    Raises `ConfigError` where there is none yet, `RejectedError` where it is damaged.
    """
    path = data / FILE
    if not path.exists():
        raise ConfigError(f"{data}: this site has no model for notes yet: --model BUNDLE names one that embeds texts")
    return embedder_of(_model(path.read_bytes(), path))


def embedder_of(model: Model) -> Embedder:
    """What this model makes of texts, at length 1. Raises `RejectedError` where it makes no vectors of them."""
    before, vector = model.before, model.contract.embedding
    if not vector or before is None:
        raise RejectedError(f"a model for {model.contract.task}: notes need one that makes vectors of texts")

    def embed(text: str) -> Vector:
        came = model.run(before(text))[vector][0]
        length = float(np.linalg.norm(came))
        return np.asarray(came / length if length else came, dtype=np.float32)

    return Embedder(model.digest, embed)


def _model(content: bytes, path: Path) -> Model:
    try:
        model = Model(read_bundle(content))
        embedder_of(model)
    except RejectedError as error:
        raise RejectedError(f"{path}: {error}") from None
    return model
