"""What must not be in an image, looked at in the finished tree, wherever it came from."""

from pathlib import PurePosixPath

from edge_k3s.image.tree import Tree
from edge_models.errors import RejectedError

_SHELLS = frozenset({"ash", "bash", "busybox", "csh", "dash", "ksh", "sh", "tcsh", "zsh"})
_MANAGERS = frozenset({"apt", "apt-get", "dpkg", "pip", "pip3", "uv"})


def check_tree(tree: Tree) -> None:
    """Raises `RejectedError` for the first shell, package manager, or path that leads out of the image."""
    for path in sorted(tree):
        *folders, name = PurePosixPath(path).parts
        if path.startswith("/") or ".." in folders or name == "..":
            raise RejectedError(f"{path!r} is no path of a file in an image")
        if folders[-1:] in (["bin"], ["sbin"]) and name in _SHELLS:
            raise RejectedError(f"/{path} is a shell: an image has none")
        if folders[-1:] in (["bin"], ["sbin"]) and name in _MANAGERS:
            raise RejectedError(f"/{path} installs packages: an image has no such program")
        if folders[-2:] == ["site-packages", "pip"]:
            raise RejectedError(f"/{path} is pip: an image has none")
