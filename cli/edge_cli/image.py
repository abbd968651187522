"""`edge-agent image`: container images of the kit, made without a container engine."""

import dataclasses
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from edge_cli.output import data, emit_json, show_table, talk
from edge_models.errors import ConfigError

if TYPE_CHECKING:
    from edge_k3s.image.spec import ImageSummary, Role
    from edge_k3s.image.target import Platform

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Container images, made without a container engine.")

MMDEBSTRAP = "mmdebstrap"
"""Said in place of a tar: make the base now."""

RoleOption = Annotated[str, typer.Option(metavar="site|hub|broker|proxy", help="What the image is for.")]
PlatformOption = Annotated[str, typer.Option(metavar="linux/amd64|linux/arm64", help="The machine it runs on.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
ExtraOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="More of the kit: `images` for pictures, `text` for texts; repeat."),
]


@app.callback()
def _group() -> None:
    """With a callback, typer keeps each command a word of its own."""


@app.command()
def build(
    *,
    out: Annotated[Path, typer.Option(metavar="IMAGE.tar", help="The file to write.")],
    role: RoleOption = "site",
    platform: PlatformOption = "linux/amd64",
    base: Annotated[
        str, typer.Option(metavar="ROOTFS.tar|mmdebstrap", help="A Debian root file system to take the base from.")
    ] = MMDEBSTRAP,
    wheels: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The wheels to install; left out: they are fetched by pip.")
    ] = None,
    extra: ExtraOption = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name, as in registry.example.com/edge/agent.")
    ] = None,
    level: Annotated[int, typer.Option(min=1, max=22, help="How hard zstd tries.")] = 19,
    sizes: Annotated[bool, typer.Option("--sizes", help="Also say how large each package is.")] = False,
    sbom: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the bill of materials (CycloneDX) there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build one image: the same base and wheels give the same bytes. SOURCE_DATE_EPOCH is when it says it was made.

    Example: edge-agent image build --role site --base rootfs.tar --wheels wheels --out site.tar
    """
    with _extra_needed():
        from edge_k3s.image import build as building  # noqa: PLC0415 - its extra is needed to build, not for --help
        from edge_k3s.image.spec import ImageSpec  # noqa: PLC0415

    wanted, where = _role(role), _platform(platform)
    with tempfile.TemporaryDirectory(prefix="edge-image-") as folder:
        root = _base(base, wanted, where, Path(folder) / "rootfs.tar")
        house = wheels
        if house is None and wanted in ("site", "hub"):
            house = Path(folder) / "wheels"
            _fetch(house, wanted, where, extra or [], root)
        spec = ImageSpec(
            role=wanted,
            platform=where,
            base=root,
            out=out,
            wheels=house,
            extras=tuple(extra or ()),
            name=name,
            created_s=_epoch(),
            level=level,
        )
        summary = building.build(spec, with_parts=sizes)
    if sbom is not None:
        _write(sbom, summary.bill)
    for warning in summary.warnings:
        talk.print(f"mind: {warning}", markup=False, soft_wrap=True)
    _tell(summary, as_json)


@app.command()
def wheels(
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to fill.")],
    base: Annotated[Path, typer.Option(metavar="ROOTFS.tar", help="The base that they are to run on.")],
    role: RoleOption = "site",
    platform: PlatformOption = "linux/amd64",
    extra: ExtraOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch by pip all wheels that an image needs, also for another kind of machine.

    Example: edge-agent image wheels --platform linux/arm64 --base rootfs-arm64.tar --out wheels-arm64
    """
    with _extra_needed():
        import edge_k3s.image.download  # noqa: F401, PLC0415

    _fetch(out, _role(role), _platform(platform), extra or [], base)
    names = sorted(path.name for path in out.glob("*.whl"))
    if as_json:
        emit_json({"path": str(out), "wheels": names})
        return
    data.print(f"{out}: {len(names)} wheels", markup=False)


@app.command()
def base(
    *,
    out: Annotated[Path, typer.Option(metavar="ROOTFS.tar", help="The file to write.")],
    role: RoleOption = "site",
    platform: PlatformOption = "linux/amd64",
    as_json: JsonOption = False,
) -> None:
    """Make a Debian root file system by mmdebstrap, to be kept and built upon again and again.

    Example: edge-agent image base --out rootfs.tar
    """
    with _extra_needed():
        import edge_k3s.image.bootstrap  # noqa: F401, PLC0415

    _base(MMDEBSTRAP, _role(role), _platform(platform), out)
    size_bytes = out.stat().st_size
    if as_json:
        emit_json({"path": str(out), "size_bytes": size_bytes})
        return
    data.print(f"{out}: {size_bytes / 1e6:.1f} MB", markup=False)


def _base(said: str, role: "Role", platform: "Platform", out: Path) -> Path:
    from edge_k3s.image.bootstrap import bootstrap  # noqa: PLC0415

    if said != MMDEBSTRAP:
        return Path(said)
    talk.print(f"making a Debian root for {platform} by mmdebstrap", markup=False)
    bootstrap(platform, {"site": (), "hub": ("mosquitto",), "broker": ("mosquitto",), "proxy": ("haproxy",)}[role], out)
    return out


def _fetch(folder: Path, role: "Role", platform: "Platform", extras: list[str], root: Path) -> None:
    from edge_k3s.image.base import target_of  # noqa: PLC0415
    from edge_k3s.image.download import download  # noqa: PLC0415
    from edge_k3s.image.dpkg import read_root  # noqa: PLC0415
    from edge_k3s.image.spec import EXTRAS  # noqa: PLC0415

    if role not in EXTRAS:
        raise ConfigError(f"--role {role}: it holds no Python, and needs no wheels")
    talk.print("fetching wheels by pip", markup=False)
    target = target_of(read_root(root), platform)
    download(folder, version("edge-agent-kit"), sorted({*EXTRAS[role], *extras}), target)


def _tell(summary: "ImageSummary", as_json: bool) -> None:
    if as_json:
        said = dataclasses.asdict(summary) | {"path": str(summary.path)}
        del said["bill"]
        emit_json(said)
        return
    if summary.parts:
        table = Table("package", "version", "layer", "MB", "MB compressed", box=None)
        for part in summary.parts:
            table.add_row(
                part.name,
                part.version,
                part.layer,
                f"{part.size_bytes / 1e6:.2f}",
                f"{part.compressed_bytes / 1e6:.2f}",
            )
        show_table(table)
    layers = ", ".join(f"{each.name} {each.size_bytes / 1e6:.1f}" for each in summary.layers)
    data.print(f"{summary.path}: {summary.size_bytes / 1e6:.1f} MB ({layers})", markup=False)
    data.print(f"{summary.reference}  {summary.digest}", markup=False)


def _role(text: str) -> "Role":
    from edge_k3s.image.spec import NAMES  # noqa: PLC0415

    if text not in NAMES:
        raise ConfigError(f"--role {text!r}: write one of {', '.join(NAMES)}")
    return text


def _platform(text: str) -> "Platform":
    from edge_k3s.image.target import parse_platform  # noqa: PLC0415

    return parse_platform(text)


def _epoch() -> int | None:
    """When the image says it was made. Source: reproducible-builds.org, SOURCE_DATE_EPOCH specification 1.1."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if text and not (text.isascii() and text.isdigit() and int(text) < 2**33):
        raise ConfigError(f"SOURCE_DATE_EPOCH {text!r}: write UTC seconds, as in 1580601600")
    return int(text) if text else None


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"--sbom {path}: {error.strerror}") from None


@contextmanager
def _extra_needed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"images need the extra [image] ({error.name}): pip install 'edge-agent-kit[image]'"
        ) from None
