"""What the operator supplies for a kit to carry: k3s itself, its install script, images; held to a hash."""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edge_k3s.names import check_file
from edge_k3s.spec import Cargo
from edge_models.errors import ConfigError

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")

_MACHINES = {62: "amd64", 183: "arm64"}
"""`e_machine` of an ELF file → what k3s calls it. Source: the ELF specification, EM_X86_64 and EM_AARCH64."""

_IMAGES = (".tar", ".tar.gz", ".tar.zst")
"""Of what k3s imports, those that k3s-ansible carries as well."""

_MAX_MANIFEST_BYTES = 1024 * 1024


def k3s_cargo(path: Path, sha256: str | None) -> tuple[Cargo, str | None]:
    """The k3s binary, and for which processor it is (``amd64``, ``arm64``; None where only its hash says what it is).

    Raises `ConfigError` where it is missing, has another hash than `sha256`, or is no program for Linux and no hash
    says that it is meant nevertheless.
    """
    cargo = _measured(path, "k3s", "--k3s", sha256, 0o755)
    with path.open("rb") as file:
        head = file.read(20)
    if head[:4] == b"\x7fELF":
        arch = _MACHINES.get(int.from_bytes(head[18:20], "big" if head[5] == 2 else "little"))
        if arch is None:
            raise ConfigError(f"--k3s {path}: is for another processor than amd64 or arm64")
        return cargo, arch
    if sha256 is None:
        raise ConfigError(
            f"--k3s {path}: is no program for Linux (was a web page saved in its place?): download it again; a script "
            "of your own in its place wants --k3s-sha256"
        )
    return cargo, None


def script_cargo(path: Path, sha256: str | None = None) -> Cargo:
    """k3s's install script. Raises `ConfigError` where it is missing, another one, or no script."""
    cargo = _measured(path, "k3s-install.sh", "--k3s-install", sha256, 0o755)
    with path.open("rb") as file:
        if file.read(2) != b"#!":
            raise ConfigError(f"--k3s-install {path}: is no script: take install.sh of the k3s release")
    return cargo


def image_cargo(paths: Sequence[Path]) -> tuple[Cargo, ...]:
    """Tarballs of images. Raises `ConfigError` where one is missing, or k3s would not import it."""
    made: dict[str, Cargo] = {}
    for path in paths:
        if not path.name.endswith(_IMAGES):
            raise ConfigError(f"--image-tar {path}: k3s imports {', '.join(_IMAGES)}: name it so")
        check_file(path.name)
        if path.name in made:
            raise ConfigError(f"--image-tar {path}: two have the name {path.name}: rename one")
        made[path.name] = replace(_measured(path, path.name, "--image-tar", None, 0o644), images=_names_in(path))
    return tuple(made.values())


def _names_in(path: Path) -> frozenset[str] | None:
    """As `Cargo.images`. Source: the manifest.json of ``docker save``."""
    if path.suffix != ".tar":
        return None
    try:
        with tarfile.open(path, "r:") as tar, tar.extractfile("manifest.json") or io.BytesIO() as file:
            entries = json.loads(file.read(_MAX_MANIFEST_BYTES))
        return frozenset(str(name) for entry in entries for name in entry["RepoTags"])
    except (tarfile.TarError, KeyError, TypeError, ValueError, OSError):
        return None


def _measured(path: Path, name: str, option: str, sha256: str | None, mode: int) -> Cargo:
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ConfigError(f"{option}-sha256 {sha256!r}: wanted 64 hex digits, as in the release's sha256sum-amd64.txt")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}") from None
    if sha256 is not None and found != sha256.lower():
        raise ConfigError(
            f"{option} {path}: has the sha256 {found}, not {sha256.lower()}: take it from its source again"
        )
    return Cargo(name, path, found, size, mode)
