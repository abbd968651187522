"""The images of hub and site: files to be brought to the nodes, or names of what is there already."""

import json
import shlex
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edge_cluster.outcome import Unfit
from edge_k3s.names import check_image
from edge_models.errors import ConfigError

ROLE_LABEL = "edge-agent-kit/role"
LOAD_S = 900.0
MAKE = "edge-agent image build --role hub --out hub.tar makes one that does for both"


@dataclass(frozen=True, slots=True)
class Image:
    """An image by its name, and what it was made for: `hub`, `site`, or nothing said."""

    reference: str
    role: str | None = None


@dataclass(frozen=True, slots=True)
class Images:
    """What the two pods run."""

    hub: str
    site: str


def read_tar(path: Path) -> Image:
    """Name and role, from a file as `edge-agent image build` writes it. Raises `Unfit`."""
    try:
        with tarfile.open(path) as tar:
            manifest = json.load(_member(tar, "manifest.json"))[0]
            labels = json.load(_member(tar, manifest["Config"]))["config"].get("Labels") or {}
            return Image(manifest["RepoTags"][0], labels.get(ROLE_LABEL))
    except OSError as error:
        raise Unfit(f"--image {path}: {error.strerror or error}") from None
    except (tarfile.TarError, ValueError, KeyError, IndexError, TypeError) as error:
        raise Unfit(f"--image {path}: is no image as `edge-agent image build` writes it ({error})") from None


def read_reference(text: str) -> Image:
    """``NAME:TAG``, or ``ROLE=NAME:TAG``. Raises `Unfit`."""
    role, equals, name = text.rpartition("=")
    if equals and role not in ("hub", "site"):
        raise Unfit(f"--image-ref {text!r}: write NAME:TAG, or hub=NAME:TAG and site=NAME:TAG")
    try:
        check_image(name)
    except ConfigError as error:
        raise Unfit(f"--image-ref: {error}") from None
    return Image(name, role or None)


def choose(images: Iterable[Image]) -> Images:
    """Which pod runs which: a hub's image has all that a site needs. Raises `Unfit`."""
    of_role: dict[str | None, str] = {}
    for each in images:
        if each.role in of_role:
            raise Unfit(f"two images of role {each.role or 'unknown'}: {of_role[each.role]} and {each.reference}")
        of_role[each.role] = each.reference
    hub = of_role.get("hub") or of_role.get(None)
    if hub is None:
        raise Unfit(f"no image of a hub: name one with --image TAR or --image-ref NAME:TAG ({MAKE})")
    return Images(hub, of_role.get("site") or hub)


def load(command: str, path: Path) -> None:
    """Bring a file to the nodes by the user's own command, in which ``{tar}`` stands for it. Raises `Unfit`."""
    words = [word.replace("{tar}", str(path)) for word in shlex.split(command)]
    if not words or "{tar}" not in command:
        raise Unfit(f"--load {command!r}: write a command with {{tar}} in it, as in 'k3s ctr images import {{tar}}'")
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=LOAD_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unfit(f"--load: {shlex.join(words)}: {error}") from None
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
        raise Unfit(f"--load: {shlex.join(words)} ended with {done.returncode}: {last[0]}")


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    found = tar.extractfile(name)
    if found is None:
        raise KeyError(f"{name} is no file")
    return found
