"""From a recipe to a bundle file."""

from pathlib import Path

from edge_models.build.assemble import Built, assemble
from edge_models.build.catalogue import Recipe
from edge_models.build.recipe import Progress
from edge_models.build.schemes import apply


def make(recipe: Recipe, version: str, folder: Path, progress: Progress) -> Built:
    """Train or fetch, export, quantize and measure one version, and write ``folder/NAME-VERSION.bundle``.

    The file appears whole at the end or not at all. Raises `ConfigError` when the folder cannot be made.
    """
    draft = recipe.prepare(version, progress)
    graph = None
    if draft.scheme != "none":
        progress("quantizing")
        graph = apply(draft.scheme, draft.sheet.contract, draft.graph, draft.calibration)
    return assemble(draft, graph, folder / f"{recipe.name}-{version}.bundle", progress)
