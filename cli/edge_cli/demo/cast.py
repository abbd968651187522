"""Who plays in the demo: the sites, their machines, and the files of both releases."""

import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from edge_cli.demo.feeder import Stream
from edge_models.shipped import DATA, shipped_bundles


@dataclass(frozen=True, slots=True)
class Part:
    """One agent's machines at one site: what is replayed there, and how often."""

    topic: str
    bundle: str
    machines: tuple[str, ...]
    rate_per_s: float


@dataclass(frozen=True, slots=True)
class Player:
    """One site."""

    site: str
    labels: dict[str, str]
    parts: tuple[Part, ...]


_PRESSES = Part("sensors/instrument", "trace-2.bundle", ("press-1", "press-2", "press-3"), 3.0)
_COOLING = Part("sensors/cooling", "shuttle-2.bundle", ("loop-a", "loop-b"), 8.0)
_APPLIANCES = Part("sensors/power", "appliance-2.bundle", ("plug-1", "plug-2", "plug-3", "plug-4"), 6.0)

PLAYERS = (
    Player("plant-01", {"kind": "factory", "region": "north"}, (_PRESSES, _COOLING)),
    Player("plant-02", {"kind": "factory", "region": "south"}, (_PRESSES, _COOLING)),
    Player("store-01", {"kind": "shop", "region": "south"}, (_APPLIANCES,)),
)
"""Machines play held-out samples: the golden inputs of the newest bundles, which no recipe trained on."""

CUT = "plant-01"
"""The site whose link is cut."""

PROBED = "plant-02"
"""The site whose local API is asked while its models are swapped."""

PROBED_MODEL, PROBED_INPUT, PROBED_BUNDLE = "trace", "window", "trace-1.bundle"


def lay_out(folder: Path) -> None:
    """Put the files of both releases into `folder`, as an operator would have them."""
    folder.mkdir(parents=True)
    for asset in files("edge_cli.demo").joinpath("assets").iterdir():
        (folder / asset.name).write_bytes(asset.read_bytes())
    for bundle in DATA.glob("*.bundle"):
        shutil.copy(bundle, folder / bundle.name)


def what_is_better() -> str:
    """Held-out accuracy of the models of release 1 and of release 2, as their cards say."""
    cards = {(b.contract.name, b.contract.version): b.card["metrics"][b.card["precision"]] for b in shipped_bundles()}
    names = sorted({name for name, _ in cards})
    return ", ".join(f"{n} {cards[n, '1']['accuracy']:.3f} → {cards[n, '2']['accuracy']:.3f}" for n in names)


def streams(files_in: Path) -> list[Stream]:
    """What the feeder publishes, for all sites."""
    return [
        Stream(
            topic=f"local/{player.site}/{part.topic}",
            bundle=files_in / part.bundle,
            machines=list(part.machines),
            rate_per_s=part.rate_per_s,
            start_at=7 * number,
        )
        for number, player in enumerate(PLAYERS)
        for part in player.parts
    ]
