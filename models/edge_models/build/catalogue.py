"""The recipes there are: the kit's own, and those of other packages (entry points `edge_models.recipes`)."""

import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, cast

from edge_models.build.draft import Draft
from edge_models.build.recipe import Progress, needs_extra, version_of
from edge_models.build.samples import Samples
from edge_models.build.workdir import Sheet
from edge_models.errors import ConfigError

GROUP = "edge_models.recipes"


class Recipe(Protocol):
    """How a bundle is made, whole: a module's ``RECIPE``, or what an entry point names."""

    @property
    def name(self) -> str:
        """As on the command line."""
        ...

    def version(self, number: str | None) -> str:
        """`number`, or the newest. Raises `ConfigError` where there is no such version."""
        ...

    def prepare(self, version: str, progress: Progress) -> Draft:
        """Read the data, train or fetch, export. The same call gives the same bytes."""
        ...


Parts = tuple[Sheet, bytes, dict[str, bytes], Samples, Samples]
"""Sheet, float graph, files, samples to calibrate on, samples held out."""


@dataclass(frozen=True, slots=True)
class GraphRecipe:
    """A recipe whose model is trained already."""

    name: str
    versions: tuple[str, ...]
    """Oldest first."""
    scheme: str
    """How it is quantized: none, static, dynamic or int4."""
    parts: Callable[[str, Progress], Parts]
    golden_samples: int = 20

    def version(self, number: str | None) -> str:
        """As `Recipe`."""
        return version_of(self.name, self.versions, number)

    def prepare(self, version: str, progress: Progress) -> Draft:
        """As `Recipe`."""
        return Draft(*self.parts(version, progress), self.scheme, self.golden_samples)


def recipe_names() -> list[str]:
    """The recipes there are."""
    return sorted({*_own(), *_others()})


def load_recipe(name: str) -> Recipe:
    """The recipe of this name. Raises `ConfigError`: no such recipe (and the nearest), or the extra is missing."""
    own, others = _own(), _others()
    if name not in {*own, *others}:
        names = recipe_names()
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
        meant = f": did you mean {nearest[0]!r}?" if nearest else "."
        raise ConfigError(f"no recipe {name!r}{meant} There are {', '.join(names)}")
    with needs_extra():
        if name in own:
            module = importlib.import_module(f"edge_models.build.recipes.{own[name]}")
            return cast(Recipe, module.RECIPE)
        return cast(Recipe, others[name].load())


def _own() -> dict[str, str]:
    """Name → module; a name has dashes where a module has underscores."""
    found = importlib.util.find_spec("edge_models.build.recipes")
    folders = list(found.submodule_search_locations or []) if found else []
    return {module.name.replace("_", "-"): module.name for module in pkgutil.iter_modules(folders)}


def _others() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
