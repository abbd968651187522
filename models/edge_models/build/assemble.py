"""From a draft and the graph that was chosen to a bundle file: measured, with golden samples and a card."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_models.build.card import make_card
from edge_models.build.draft import PRECISIONS, Draft
from edge_models.build.golden import golden, made_up
from edge_models.build.latency import latency
from edge_models.build.measure import measure
from edge_models.build.recipe import Progress
from edge_models.build.speed import one_run
from edge_models.build.workdir import FLOAT
from edge_models.bundle import Golden, write_bundle
from edge_models.contract import Contract
from edge_models.digests import Digest
from edge_models.errors import ConfigError

ATOL = 0.02
"""Of probabilities and unit vectors, and as a share of the largest value of other outputs. Source: models/FORMAT.md."""


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle that was just written."""

    path: Path
    digest: Digest
    card: dict[str, Any]


def assemble(draft: Draft, graph: bytes | None, out: Path, progress: Progress) -> Built:
    """Measure, and write the bundle of `graph`, what the draft's scheme made of its float one; None: of that itself.

    The file appears whole at the end or not at all. Raises `ConfigError` where its folder cannot be made.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out.parent}: {error.strerror}") from None
    contract, files = draft.sheet.contract, draft.files
    graphs = {FLOAT: draft.graph} | ({} if graph is None else {PRECISIONS[draft.scheme]: graph})
    packed = list(graphs.values())[-1]
    progress("measuring")
    held_out = draft.held_out
    measured = {} if held_out is None else {n: measure(contract, g, files, held_out) for n, g in graphs.items()}
    samples = golden(contract, packed, files, held_out or made_up(contract, draft.golden_samples), draft.golden_samples)
    contract = _with_atol(contract, samples)
    one = one_run(contract, samples.inputs)
    scheme = "none" if graph is None else draft.scheme
    times = latency(contract, graphs, files, one)
    card = make_card(replace(draft.sheet, contract=contract), scheme, graphs, measured, samples, times)
    digest = write_bundle(out, contract=contract, graph=packed, golden=samples, card=card, files=files)
    return Built(out, digest, card)


def _with_atol(contract: Contract, samples: Golden) -> Contract:
    """Where nobody said how far a CPU's answers may be off."""
    if contract.golden_atol:
        return contract
    largest = 1.0
    if contract.task in ("tensors", "reading"):
        largest = max(1.0, float(np.abs(samples.outputs[contract.main].astype(np.float64)).max()))
    return replace(contract, golden_atol=round(ATOL * largest, 6))
