"""A small Debian root and small wheels, made as dpkg and wheel builders lay them out."""

import base64
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Wheelwright = Callable[..., Path]

PACKAGES: dict[str, tuple[str, str, Mapping[str, str | None]]] = {
    # Name → version, what it requires, files; None: a folder.
    "base-files": ("12.4", "awk", {"/etc/debian_version": "12.9\n", "/usr/share/doc/base-files/README": "talk"}),
    "bash": ("5.2", "libc6", {"/bin/bash": "a shell"}),
    "ca-certificates": (
        "2025",
        "openssl (>= 1.1), debconf (>= 0.5) | debconf-2.0",
        {"/usr/share/ca-certificates/mozilla/B.crt": "B", "/usr/share/ca-certificates/mozilla/A.crt": "A\n"},
    ),
    "debconf": ("1.5", "perl-base", {"/usr/bin/debconf": "asks"}),
    "libc6": (
        "2.36-9",
        "libgcc-s1",
        {
            "/lib/x86_64-linux-gnu/libc.so.6": "glibc",
            "/lib": None,
            "/usr/share/doc/libc6/copyright": "LGPL",
            "/usr/share/man/x.gz": "manual",
        },
    ),
    "libgcc-s1": ("12.2", "", {}),
    "libpython3.11-stdlib": (
        "3.11.2",
        "libreadline8 (>= 6), libc6 (>= 2.36)",
        {"/usr/lib/python3.11/os.py": "x = 1\n", "/usr/lib/python3.11/lib-dynload/readline.so": "terminal"},
    ),
    "libreadline8": ("8.2", "", {"/lib/x86_64-linux-gnu/libreadline.so.8": "terminal"}),
    "libstdc++6": ("12.2", "libc6", {"/usr/lib/x86_64-linux-gnu/libstdc++.so.6": "C++"}),
    "mawk": ("1.3", "", {"/usr/bin/mawk": "awk"}),
    "mosquitto": ("2.0.11-1", "libc6, adduser", {"/usr/sbin/mosquitto": "a broker"}),
    "netbase": ("6.4", "", {"/etc/services": "ssh 22/tcp\n"}),
    "openssl": ("3.0", "libc6", {"/usr/bin/openssl": "a program"}),
    "perl-base": ("5.36", "", {"/usr/bin/perl": "perl"}),
    "python3.11-minimal": ("3.11.2", "libc6", {"/usr/bin/python3.11": "an interpreter"}),
    "tzdata": ("2026a", "", {"/usr/share/zoneinfo/UTC": "TZif"}),
}


def write_root(path: Path, architecture: str = "amd64", mtime: int = 1_700_000_000, leave_out: str = "") -> Path:
    """A tar of a root with these packages, its files later than their links and with some time."""
    status, files = [], {}
    for name, (version, requires, owned) in PACKAGES.items():
        if name == leave_out:
            continue
        provides = "Provides: awk\n" if name == "mawk" else ""
        status.append(
            f"Package: {name}\nStatus: install ok installed\nVersion: {version}\nArchitecture: {architecture}\n"
            f"{provides}Depends: {requires}\nDescription: one line\n and more\n"
        )
        files[f"var/lib/dpkg/info/{name}.list"] = "".join(f"{each}\n" for each in ("/.", *owned))
        for each, text in owned.items():
            place = each.strip("/")
            # As on a disk with a merged /usr.
            place = f"usr/{place}" if place.split("/")[0] in ("bin", "lib", "sbin") else place
            if text is not None:
                files[place] = text
    files["var/lib/dpkg/status"] = "\n".join(status)
    with tarfile.open(path, "w") as archive:
        for name in ("bin", "lib", "sbin"):
            link = tarfile.TarInfo(f"./{name}")
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            archive.addfile(link)
        for name, text in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mtime = len(text.encode()), mtime
            member.mode = 0o4755 if "/bin/" in name or "/sbin/" in name else 0o600
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The small root."""
    return write_root(tmp_path / "root.tar")


@pytest.fixture
def new_root() -> Callable[..., Path]:
    """Makes other roots: `new_root(path, architecture=…, mtime=…, leave_out=…)`."""
    return write_root


@pytest.fixture
def wheel(tmp_path: Path) -> Wheelwright:
    """Makes wheels: `wheel(name, version, requires, files=…, tag=…, extras=…, folder=…)`."""

    def make(
        name: str,
        version: str = "1.0",
        *requires: str,
        files: Mapping[str, str] | None = None,
        tag: str = "py3-none-any",
        extras: tuple[str, ...] = (),
        folder: Path | None = None,
        mtime: tuple[int, int, int, int, int, int] = (2024, 1, 1, 0, 0, 0),
    ) -> Path:
        house = folder or tmp_path / "wheels"
        house.mkdir(exist_ok=True)
        module = name.replace("-", "_")
        about = f"{module}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: MIT\n"
        metadata += "".join(f"Requires-Dist: {each}\n" for each in requires)
        metadata += "".join(f"Provides-Extra: {each}\n" for each in extras)
        content = {
            **(files if files is not None else {f"{module}/__init__.py": f"name = {name!r}\n"}),
            f"{about}/METADATA": metadata,
            f"{about}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
        }
        lines = []
        path = house / f"{module}-{version}-{tag}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for place, text in content.items():
                digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
                lines.append(f"{place},sha256={digest},{len(text.encode())}\n")
                archive.writestr(zipfile.ZipInfo(place, mtime), text)
            archive.writestr(zipfile.ZipInfo(f"{about}/RECORD", mtime), "".join(lines) + f"{about}/RECORD,,\n")
        return path

    return make


KIT_FILES = {
    "edge_agent/__init__.py": "",
    "edge_cli/main.py": "def main() -> None:\n    print('hello')\n",
    "edge_agent_kit-0.1.0.dist-info/entry_points.txt": "[console_scripts]\nedge-agent = edge_cli.main:main\n",
}
"""The kit, small."""


@pytest.fixture
def house(wheel: Wheelwright, tmp_path: Path) -> Path:
    """Wheels of a small kit: it requires `numbers-in-rows`, and as a hub `web`."""
    wheel(
        "edge-agent-kit", "0.1.0", "numbers-in-rows>=1", 'web>=2 ; extra == "hub"', 'web ; extra == "postgres"',
        files=KIT_FILES, extras=("hub", "postgres", "text"),
    )  # fmt: skip
    wheel("numbers-in-rows", "1.2", "pip", files={"numbers_in_rows/__init__.py": "x = {1, 2}\n"})
    wheel("web", "2.1", "numbers-in-rows")
    return tmp_path / "wheels"
