"""From a recipe to a bundle file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_models.build.card import make_card
from edge_models.build.golden import golden
from edge_models.build.latency import latency
from edge_models.build.quantize import to_int8
from edge_models.build.recipe import Progress, Recipe
from edge_models.bundle import write_bundle
from edge_models.contract import Contract
from edge_models.digests import Digest
from edge_models.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle that was just written."""

    path: Path
    digest: Digest
    card: dict[str, Any]


def make(recipe: Recipe, version: str, folder: Path, progress: Progress) -> Built:
    """Train, export, quantize and measure one version, and write ``folder/NAME-VERSION.bundle``.

    The file appears whole at the end or not at all. Raises `ConfigError` when the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}") from None
    chosen = recipe.versions[version]
    progress("reading the data")
    data = recipe.load()
    float_graph = chosen.float_graph(chosen.sees(data.train), lambda remark: progress(f"training: {remark}"))
    progress("quantizing")
    int8_graph = to_int8(float_graph, data.calibration)
    progress("measuring")
    samples = golden(int8_graph, data.held_out, recipe.labels, recipe.golden_samples)
    one = {name: array[:1] for name, array in samples.inputs.items()}
    graphs = {"float": float_graph, "int8": int8_graph}
    card = make_card(recipe, version, data, graphs, samples, latency(float_graph, int8_graph, one))
    contract = Contract(
        name=recipe.name,
        version=version,
        task="classification",
        inputs=recipe.inputs,
        outputs=recipe.outputs,
        labels=recipe.labels,
        scores=recipe.scores,
        golden_atol=recipe.golden_atol,
    )
    path = folder / f"{recipe.name}-{version}.bundle"
    digest = write_bundle(path, contract=contract, graph=int8_graph, golden=samples, card=card)
    return Built(path, digest, card)
