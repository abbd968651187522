"""The reference bundles that ship with the kit."""

from pathlib import Path

from edge_models.bundle import Bundle, read_bundle

DATA = Path(__file__).parent / "data"


def shipped_path(name: str, version: str) -> Path:
    """Where the bundle of this name and version is."""
    return DATA / f"{name}-{version}.bundle"


def shipped_bundles() -> list[Bundle]:
    """Every bundle that ships, by name and version."""
    bundles = [read_bundle(path) for path in DATA.glob("*.bundle")]
    return sorted(bundles, key=lambda bundle: (bundle.contract.name, bundle.contract.version))
