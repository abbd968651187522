"""Which wheels of a folder an image takes: all that something requires, one version of each.

The folder is what an earlier resolution left (`pip download`), so nothing is searched for: of each project the newest
wheel is taken that runs on the target and that everybody who requires it can live with.
"""

import functools
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from edge_k3s.image.target import Target
from edge_models.errors import ConfigError

KIT = "edge-agent-kit"

NOT_NEEDED = {
    "pip": "sqlite-utils names it for its command `install`; in an image nothing is installed",
    "setuptools": "builds packages",
    "tzdata": "Debian's is in the base",
}
"""Projects that are left out although something requires them, and why."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel file."""

    name: str
    """Canonical."""
    version: Version
    tags: frozenset[Tag]
    path: Path


Choice = dict[str, Wheel]
"""Canonical name → wheel, in the order of names."""


def read_house(folder: Path) -> tuple[Wheel, ...]:
    """The wheels in a folder. Raises `ConfigError` where there are none, or a name is none of a wheel."""
    paths = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    if not paths:
        raise ConfigError(f"--wheels {folder}: there are no wheels: make them with `edge-agent image wheels`")
    wheels = []
    for path in paths:
        try:
            name, version, _, tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename as error:
            raise ConfigError(f"--wheels {folder}: {error}") from None
        wheels.append(Wheel(name, version, tags, path))
    return tuple(wheels)


@functools.cache
def metadata_of(wheel: Wheel) -> Metadata:
    """What a wheel says of itself. Raises `ConfigError` where it can't be read."""
    try:
        with zipfile.ZipFile(wheel.path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            if len(names) != 1:
                raise ConfigError(f"{wheel.path}: it holds {len(names)} METADATA files, not one")
            # Not validated: licence texts and classifiers of other people's wheels are no matter of ours.
            return Metadata.from_email(archive.read(names[0]), validate=False)
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{wheel.path}: no wheel that can be read: {error}") from None


def choose(house: Sequence[Wheel], extras: Sequence[str], target: Target, fixed: Mapping[str, Wheel]) -> Choice:
    """All that the kit with these extras needs, the kit too. Of projects in `fixed` that very wheel is taken.

    Raises `ConfigError` naming what is missing and who needs it.
    """
    root = Requirement(f"{KIT}[{','.join(extras)}]" if extras else KIT)
    wishes: _Wishes = {}
    while True:
        chosen: Choice = dict(fixed)
        late = False
        closed: set[tuple[str, str]] = set()
        waiting = [("this image", root)]
        while waiting:
            asker, requirement = waiting.pop()
            name = canonicalize_name(requirement.name)
            if name in NOT_NEEDED:
                continue
            heard = wishes.setdefault(name, {})
            if (wish := f"{asker} requires {requirement}") not in heard:
                heard[wish] = requirement.specifier
                late = late or name in chosen
            if name not in chosen:
                chosen[name] = _best(house, name, heard, target, asker)
            parts = [part for part in ("", *sorted(requirement.extras)) if (name, part) not in closed]
            closed.update((name, part) for part in parts)
            waiting += [(name, each) for each in _required(chosen[name], parts, target)]
        # Where somebody was heard after the choice was made, it is made again by all wishes.
        if not late:
            _check(chosen, wishes)
            return dict(sorted(chosen.items()))


_Wishes = dict[str, dict[str, SpecifierSet]]
"""Name → who requires what → the versions that are."""


def _best(house: Sequence[Wheel], name: str, heard: Mapping[str, SpecifierSet], target: Target, asker: str) -> Wheel:
    there = [wheel for wheel in house if wheel.name == name]
    if not there:
        raise ConfigError(f"no wheel of {name}, which {asker} requires: add it to --wheels")
    ranks = target.ranks
    runs = [wheel for wheel in there if wheel.tags & ranks.keys()]
    if not runs:
        raise ConfigError(
            f"no wheel of {name} runs on {target.platform} with Python {target.python[0]}.{target.python[1]} "
            f"and glibc {target.glibc[0]}.{target.glibc[1]}: there is {', '.join(wheel.path.name for wheel in there)}"
        )
    fits = [wheel for wheel in runs if all(_allows(wish, wheel) for wish in heard.values())]
    # Where none fits everybody, one is taken all the same, and in the end it is said whom it does not fit.
    return max(fits or runs, key=lambda wheel: (wheel.version, -min(ranks[tag] for tag in wheel.tags & ranks.keys())))


def _check(chosen: Mapping[str, Wheel], wishes: _Wishes) -> None:
    for name, wheel in chosen.items():
        for wish, specifier in wishes.get(name, {}).items():
            if not _allows(specifier, wheel):
                raise ConfigError(f"{wheel.path.name} does not fit: {wish}")


def _allows(specifier: SpecifierSet, wheel: Wheel) -> bool:
    return specifier.contains(wheel.version, prereleases=True)


def _required(wheel: Wheel, extras: Sequence[str], target: Target) -> list[Requirement]:
    """What the wheel requires on the target for these extras ("": always)."""
    if not extras:
        return []
    environments = [target.environment(extra) for extra in extras]
    return [
        requirement
        for requirement in metadata_of(wheel).requires_dist or ()
        if requirement.marker is None or any(requirement.marker.evaluate(each) for each in environments)
    ]
