"""A wheelhouse for an image: the kit's own wheel, and by pip all that it requires, for another machine if need be."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_k3s.image.target import Target
from edge_k3s.image.wheels import KIT
from edge_models.errors import ConfigError, RetryableError


def checkout() -> Path | None:
    """The folder this kit runs from, where that is a checkout and not an installed wheel."""
    folder = Path(__file__).resolve().parents[3]
    return folder if (folder / "pyproject.toml").is_file() and (folder / "k3s" / "manifests").is_dir() else None


def download(folder: Path, version: str, extras: Sequence[str], target: Target) -> None:
    """Fill a folder with wheels. The kit's is built where it runs from a checkout, else fetched by `version`.

    Raises `ConfigError` where there is no pip, `RetryableError` where pip does not get what is needed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = checkout()
    if source is not None:
        _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(source))
    else:
        _pip("download", "--no-deps", "--only-binary=:all:", "--dest", str(folder), f"{KIT}=={version}")
    kit = next(iter(sorted(folder.glob(f"{KIT.replace('-', '_')}-{version}-*.whl"))), None)
    if kit is None:
        raise ConfigError(f"{folder}: pip made no wheel of {KIT} {version}")
    wanted = f"{kit}[{','.join(extras)}]" if extras else str(kit)
    python = f"{target.python[0]}{target.python[1]}"
    where = [f"--platform={each}" for each in target.platforms]
    how = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", "--find-links", str(folder)]
    _pip("download", "--dest", str(folder), *how, *where, wanted)


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if "No module named pip" in done.stderr:
        raise ConfigError(f"{sys.executable} has no pip: install it, or make a folder of wheels elsewhere (--wheels)")
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise RetryableError(f"pip {words[0]}: {said[-1] if said else 'failed'}")
