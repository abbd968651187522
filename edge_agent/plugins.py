"""Sources and tools by name: the kit's own and third parties' alike are entry points of installed packages."""

import difflib
from importlib.metadata import entry_points
from typing import Any, Literal

from edge_models.errors import ConfigError

Group = Literal["edge_agent.sources", "edge_agent.tools"]


def load_plugin(group: Group, name: str, methods: tuple[str, ...]) -> Any:
    """The class that an installed package offers as `name` in `group`, having at least `methods`.

    Raises `ConfigError`: the name nearest to an unknown one and all there are, or why the class can't be used.
    """
    what = group.removeprefix("edge_agent.").removesuffix("s")
    offers = entry_points(group=group)
    found = {offer.value: offer for offer in offers if offer.name == name}
    if not found:
        known = sorted({offer.name for offer in offers})
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"no {what} is named {name!r} ({hint}there are: {', '.join(known) or 'none'})")
    if len(found) > 1:  # else whichever was installed last would decide what an agent may do
        raise ConfigError(f"two packages offer a {what} named {name!r} ({', '.join(sorted(found))}): uninstall one")
    (offer,) = found.values()
    try:
        plugin = offer.load()
    except Exception as error:  # noqa: BLE001 - whatever a third party's module does when it is imported
        raise ConfigError(f"{what} {name!r} ({offer.value}) can't be loaded: {type(error).__name__}: {error}") from None
    lacks = [method for method in methods if not callable(getattr(plugin, method, None))]
    if lacks:
        raise ConfigError(f"{what} {name!r} ({offer.value}) has no method {lacks[0]!r}: see docs/extend.md")
    return plugin
