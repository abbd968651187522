"""The lowest layers: of a Debian root file system the packages that are needed, and of those what a process reads.

What is not listed stays out: no shell, no package manager, no interpreter but Python, no program but those named.
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge_k3s.image.dpkg import Package, Root, closure
from edge_k3s.image.target import Platform, Target
from edge_k3s.image.tree import Entry, File, Folder, Link
from edge_models.errors import ConfigError

UID = 10001
"""Of user and group in the image, as the manifests say."""

DATA = "var/lib/edge-agent"

_AT_INSTALL = (
    "adduser",
    "debconf",
    "dpkg",
    "init-system-helpers",
    "lsb-base",
    "mawk",
    "openssl",
    "perl-base",
    "sysvinit-utils",
)
"""Programs that a package runs when it is installed or started by init."""

_TERMINAL = ("libdb5.3", "libncursesw6", "libnsl2", "libreadline8", "libtinfo6", "libtirpc3")
"""Libraries of modules of Python's that nobody imports here (`LEFT_OUT`)."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Part of a Debian root file system."""

    packages: tuple[str, ...]
    """Patterns of their names; with all that they require."""
    left_out: tuple[str, ...]
    """Packages that something requires and nothing here needs."""
    programs: tuple[str, ...]
    """Patterns of the programs that stay, by name."""


PYTHON = Selection(
    packages=(
        "base-files",
        "ca-certificates",
        "libpython3.*-stdlib",
        "libstdc++6",
        "netbase",
        "python3.*-minimal",
        "tzdata",
    ),
    left_out=(*_AT_INSTALL, *_TERMINAL),
    programs=("python3.*",),
)
BROKER = Selection(packages=("base-files", "mosquitto"), left_out=_AT_INSTALL, programs=("mosquitto",))
PROXY = Selection(packages=("base-files", "haproxy"), left_out=_AT_INSTALL, programs=("haproxy",))

LEFT_OUT = {
    "etc/cron*": "nothing starts it",
    "etc/default/*": "nothing starts it",
    "etc/init.d/*": "nothing starts it",
    "etc/python3*": "for Ubuntu",
    "etc/logrotate.d/*": "nothing writes files to rotate",
    "usr/lib/systemd/*": "nothing starts it",
    "usr/lib/*/gconv/*": "character sets of iconv(3); Python has its own",
    "usr/lib/*/audit/*": "for ld.so's auditing",
    "usr/lib/python3.*/config-*": "builds extensions",
    "usr/lib/python3.*/ensurepip/*": "installs pip",
    "usr/lib/python3.*/idlelib/*": "an editor",
    "usr/lib/python3.*/lib2to3/*": "for Python 2",
    "usr/lib/python3.*/pydoc_data/*": "the interactive help",
    "usr/lib/python3.*/sitecustomize.py": "for Ubuntu",
    "usr/lib/python3.*/test/*": "tests",
    "usr/lib/python3.*/tkinter/*": "windows",
    "usr/lib/python3.*/turtledemo/*": "windows",
    "usr/lib/python3.*/venv/*": "makes environments",
    "usr/lib/python3.*/lib-dynload/_curses*": "needs a terminal",
    "usr/lib/python3.*/lib-dynload/_dbm*": "another database",
    "usr/lib/python3.*/lib-dynload/_test*": "tests",
    "usr/lib/python3.*/lib-dynload/nis*": "another directory of users",
    "usr/lib/python3.*/lib-dynload/readline*": "needs a terminal",
    "usr/share/apport/*": "for Ubuntu",
    "usr/share/bash-completion/*": "there is no shell",
    "usr/share/binfmts/*": "for the package manager",
    "usr/share/bug/*": "for the package manager",
    "usr/share/debconf/*": "for the package manager",
    "usr/share/info/*": "manuals",
    "usr/share/lintian/*": "for the package manager",
    "usr/share/locale/*": "translations of programs that are not here",
    "usr/share/man/*": "manuals",
    "usr/share/pixmaps/*": "pictures",
    "usr/share/applications/*": "for desktops",
    "usr/share/zoneinfo/localtime": "a link to a file that nobody makes",
    "usr/share/zoneinfo/right/*": "with leap seconds: another clock than anybody's",
    "usr/share/zoneinfo/posix/*": "the same once more",
    "usr/share/ca-certificates/*": "in one file instead",
    "usr/share/doc/*": "but for copyright",
}
"""Pattern of a path (``*`` also over slashes) → why it stays out."""

_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"


def select(root: Root, wanted: Selection) -> tuple[dict[str, Entry], tuple[Package, ...]]:
    """Path → entry, and the packages these are of. Raises `ConfigError` for a package that is not there."""
    packages = closure(root, _named(root, wanted.packages), wanted.left_out)
    tree: dict[str, Entry] = {}
    for package in packages:
        for path in package.paths:
            entry = root.files.get(path)
            if entry is not None and _stays(path, wanted.programs):
                tree[path] = entry
        # Where scanners look for the packages of an image that has no package manager.
        tree[f"var/lib/dpkg/status.d/{package.name}"] = File(package.paragraph.encode())
    certificates = [
        entry.data
        for package in packages
        for path in package.paths
        if path.startswith("usr/share/ca-certificates/") and isinstance(entry := root.files.get(path), File)
    ]
    if certificates:
        tree[_CERTIFICATES] = File(b"".join(each.rstrip() + b"\n" for each in certificates))
        tree["usr/lib/ssl/cert.pem"] = Link(f"/{_CERTIFICATES}")
    return tree, packages


def ground(root: Root) -> dict[str, Entry]:
    """What no package brings: the links of a merged /usr, the user, where names are looked up, folders to write to."""
    links = {
        name: Link(target.target)
        for name in ("bin", "sbin", "lib", "lib64")
        if isinstance(target := root.files.get(name), Link)
    }
    return {
        **links,
        "etc/passwd": File(
            f"root:x:0:0:root:/root:/usr/sbin/nologin\nedge:x:{UID}:{UID}:edge:/{DATA}:/usr/sbin/nologin\n".encode()
        ),
        "etc/group": File(f"root:x:0:\nedge:x:{UID}:\n".encode()),
        "etc/nsswitch.conf": File(b"passwd: files\ngroup: files\nhosts: files dns\n"),
        "usr/sbin": Folder(),  # also where no program stays there: `sbin` points to it
        "tmp": Folder(0o1777),
        DATA: Folder(0o750, UID),
    }


def interpreter(tree: Mapping[str, Entry]) -> tuple[str, tuple[int, int]]:
    """Path and version of the Python in a tree. Raises `ConfigError` where there is none, or several."""
    found = {path: match for path in tree if (match := re.fullmatch(r"usr/bin/python(3)\.(\d+)", path))}
    if len(found) != 1:
        raise ConfigError(f"--base: it has {len(found)} Pythons ({', '.join(found) or 'none'}), not one")
    path, match = found.popitem()
    return path, (int(match[1]), int(match[2]))


def target_of(root: Root, platform: Platform) -> Target:
    """What an image on this base is for. Raises `ConfigError` where it is for another machine, or has no Python."""
    check_architecture(root, platform)
    tree, _ = select(root, PYTHON)
    return Target(platform, interpreter(tree)[1], _glibc(root))


def check_architecture(root: Root, platform: Platform) -> None:
    """Raises `ConfigError` where the base is for another machine."""
    wanted = platform.partition("/")[2]
    there = {package.architecture for package in root.packages.values()} - {"all"}
    if there != {wanted}:
        raise ConfigError(f"--base: it is for {', '.join(sorted(there)) or 'no machine'}, and --platform says {wanted}")


def _glibc(root: Root) -> tuple[int, int]:
    version = root.packages["libc6"].version if "libc6" in root.packages else ""
    match = re.match(r"(?:\d+:)?(\d+)\.(\d+)", version)
    if not match:
        raise ConfigError(f"--base: its C library is no glibc whose version is known ({version or 'no libc6'})")
    return int(match[1]), int(match[2])


def _named(root: Root, patterns: Iterable[str]) -> list[str]:
    """The packages of these names; a pattern that fits none stays, so that it is missed."""
    return [name for each in patterns for name in (sorted(fnmatch.filter(root.packages, each)) or [each])]


def _stays(path: str, programs: tuple[str, ...]) -> bool:
    folder, _, name = path.rpartition("/")
    if folder in ("usr/bin", "usr/sbin", "usr/games"):
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in programs)
    if path.startswith("usr/share/doc/"):
        return name == "copyright"
    return not any(fnmatch.fnmatchcase(path, pattern) for pattern in LEFT_OUT)
