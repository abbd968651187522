"""A CD image: what a virtual machine is given as a drive, or a stick is written from."""

import io
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from edge_k3s.forms.cloud import LABEL, as_medium
from edge_k3s.spec import Cargo, KitSpec
from edge_k3s.tree import File, Made, Tree
from edge_models.errors import ConfigError

ISO = "seed.iso"


def check_iso() -> None:
    """Raises `ConfigError` where the library that writes images is not installed."""
    try:
        import pycdlib  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise ConfigError("--format iso needs the extra [kits]: pip install 'edge-agent-kit[kits]'") from None


def as_iso(spec: KitSpec, kit: Tree, key: str | None) -> Tree:
    """One image with cloud-init's two files and the kit."""
    tree = as_medium(spec, kit, key)
    return {ISO: Made(lambda path: write_iso(tree, path), 0o600)}


def write_iso(tree: Tree, path: Path) -> None:
    """ISO 9660 with Rock Ridge (names and modes as Linux has them) and Joliet (names for Windows).

    Source: ECMA-119. The plain names below are what neither shows, and only have to differ.
    """
    import pycdlib  # noqa: PLC0415 - an extra

    image: Any = pycdlib.PyCdlib()
    image.new(interchange_level=3, vol_ident=LABEL, joliet=3, rock_ridge="1.09")
    plain: dict[PurePosixPath, str] = {PurePosixPath("."): ""}
    number = iter(range(1, 100_000))

    def folder(of: PurePosixPath) -> str:
        if of not in plain:
            above = folder(of.parent)
            plain[of] = f"{above}/D{next(number):06}"
            mode = 0o040700 if of.name == "secrets" else 0o040755
            image.add_directory(plain[of], rr_name=of.name, joliet_path=f"/{of}", file_mode=mode)
        return plain[of]

    try:
        for name, each in tree.items():
            place = PurePosixPath(name)
            add = _adding(image, each)
            add(
                iso_path=f"{folder(place.parent)}/F{next(number):06}.;1",
                rr_name=place.name,
                joliet_path=f"/{place}",
                file_mode=0o100000 | each.mode,
            )
        image.write(str(path))
    finally:
        image.close()


def _adding(image: Any, each: File | Cargo | Made) -> Callable[..., None]:
    if isinstance(each, File):
        return lambda **words: image.add_fp(io.BytesIO(each.data), len(each.data), **words)
    if isinstance(each, Cargo):
        return lambda **words: image.add_file(str(each.source), **words)
    raise TypeError("an image within an image")
