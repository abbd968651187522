"""A kit inside a text: packed, for those who take one file and no folder."""

import base64
import gzip

from edge_k3s.spec import Cargo
from edge_k3s.tree import File, Tree
from edge_models import ustar
from edge_models.errors import ConfigError

WAIT_S = 900
"""For k3s to start and make the site's volume, where nobody looks on."""

ARCHIVE = "kit.tar.gz"


def check_small(cargo: tuple[Cargo, ...], form: str, instead: str) -> None:
    """Raises `ConfigError` where a kit carries what has no room in a text."""
    if cargo:
        raise ConfigError(f"--format {form}: k3s and images have no room in it: {instead}")


def packed(kit: Tree) -> str:
    """The kit as base64 of a tar.gz; the same kit gives the same text. It has no cargo."""
    files = {path: each.data for path, each in kit.items() if isinstance(each, File)}
    return base64.b64encode(gzip.compress(ustar.pack(files), 9, mtime=0)).decode()


def install_words(folder: str, key: str | None) -> str:
    """How install.sh is called where nobody is there to answer; `key`: who has to have signed."""
    trust = f" --key {key}" if key else ""
    return f"sh {folder}/install.sh --wait {WAIT_S}{trust}"
