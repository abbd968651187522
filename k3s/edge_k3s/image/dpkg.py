"""What a Debian root file system says of itself: its packages, what each requires, and which files are whose.

Source: deb-control(5), dpkg-query(1) (the files below /var/lib/dpkg), Debian Policy 7.1 (relations).
"""

import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from edge_k3s.image.tree import Entry, File, Link
from edge_models.errors import ConfigError

_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Folders that are links into usr/ since Debian 12; packages still name files below them."""

_NAME = re.compile(r"^\s*([a-z0-9][a-z0-9+.-]+)")


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package."""

    name: str
    version: str
    architecture: str
    source: str
    requires: tuple[tuple[str, ...], ...]
    """Each a choice of names."""
    provides: tuple[str, ...]
    paragraph: str = field(repr=False)
    """As in the status file, without its state there."""
    paths: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Root:
    """A root file system in memory."""

    files: Mapping[str, Entry] = field(repr=False)
    """Path → file or link; hard links are files of their own."""
    packages: Mapping[str, Package]


def read_root(path: Path) -> Root:
    """The root file system in a tar. Raises `ConfigError` where it can't be read or names no Debian packages."""
    try:
        with tarfile.open(path) as archive:
            files = _files(archive)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ConfigError(f"--base {path}: no tar that can be read: {error}") from None
    status = files.get("var/lib/dpkg/status")
    text = status.data.decode() if isinstance(status, File) else ""
    packages = [_package(paragraph, files) for paragraph in text.split("\n\n") if paragraph.strip()]
    if not packages:
        raise ConfigError(f"--base {path}: it names no Debian packages (var/lib/dpkg/status)")
    return Root(files, {package.name: package for package in packages})


def closure(root: Root, wanted: Iterable[str], left_out: Iterable[str]) -> tuple[Package, ...]:
    """The packages wanted and all that they require, by name, but for those left out and what only they require.

    Raises `ConfigError` naming a package that is not there.
    """
    out = set(left_out)
    provided = {virtual: package.name for package in root.packages.values() for virtual in package.provides}
    found: dict[str, Package] = {}
    waiting: list[tuple[str, tuple[str, ...]]] = [("the image", (name,)) for name in wanted]
    while waiting:
        asker, choice = waiting.pop()
        if any(name in found for name in choice) or out.intersection(choice):
            continue
        there = [provided.get(name, name) for name in choice if provided.get(name, name) in root.packages]
        if not there:
            raise ConfigError(f"--base: it has no package {' or '.join(choice)}, which {asker} requires")
        package = root.packages[there[0]]
        if package.name not in found and package.name not in out:
            found[package.name] = package
            waiting += [(package.name, each) for each in package.requires]
    return tuple(found[name] for name in sorted(found))


def _files(archive: tarfile.TarFile) -> dict[str, Entry]:
    files: dict[str, Entry] = {}
    for member in archive:
        path = str(PurePosixPath(member.name))
        if member.isreg():
            stream = archive.extractfile(member)
            files[path] = File(stream.read() if stream else b"", bool(member.mode & 0o111))
        elif member.issym():
            files[path] = Link(member.linkname)
        elif member.islnk() and (original := files.get(str(PurePosixPath(member.linkname)))) is not None:
            files[path] = original
    return files


def _package(paragraph: str, files: Mapping[str, Entry]) -> Package:
    fields = _fields(paragraph)
    name, architecture = fields.get("Package", ""), fields.get("Architecture", "")
    requires = f"{fields.get('Pre-Depends', '')},{fields.get('Depends', '')}"
    lists = (f"var/lib/dpkg/info/{each}.list" for each in (name, f"{name}:{architecture}"))
    listed = next((files[each] for each in lists if each in files), None)
    text = listed.data.decode() if isinstance(listed, File) else ""
    return Package(
        name=name,
        version=fields.get("Version", ""),
        architecture=architecture,
        source=fields.get("Source", name).partition(" ")[0],
        requires=tuple(_names(choice) for choice in requires.split(",") if choice.strip()),
        provides=tuple(name for each in fields.get("Provides", "").split(",") for name in _names(each)),
        paragraph="".join(f"{line}\n" for line in paragraph.strip().splitlines() if not line.startswith("Status:")),
        paths=tuple(sorted({_merged(line.strip("/")) for line in text.splitlines()})),
    )


def _fields(paragraph: str) -> dict[str, str]:
    """The fields of a paragraph that are one line, and the first line of others."""
    lines = (line.partition(":") for line in paragraph.splitlines() if not line.startswith((" ", "\t")))
    return {name: value.strip() for name, colon, value in lines if colon}


def _names(choice: str) -> tuple[str, ...]:
    return tuple(found[1] for each in choice.split("|") if (found := _NAME.match(each)))


def _merged(path: str) -> str:
    return f"usr/{path}" if path.partition("/")[0] in _MERGED else path
