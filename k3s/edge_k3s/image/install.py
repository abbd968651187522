"""A wheel as the files it becomes in the image's virtual environment."""

import os
import zipfile
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import BinaryIO

from installer import install
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import RecordEntry
from installer.scripts import Script
from installer.sources import WheelFile
from installer.utils import Scheme

from edge_k3s.image.tree import Entry, File, Link
from edge_k3s.image.trim import is_left_out
from edge_k3s.image.wheels import KIT, Wheel
from edge_models.errors import RejectedError

VENV = "opt/edge-agent"
"""A virtual environment, so that the kit is found by any process that is started with its Python, on any base."""

PYTHON = f"/{VENV}/bin/python3"


def site_packages(python: tuple[int, int]) -> str:
    """Where packages lie."""
    return f"{VENV}/lib/python{python[0]}.{python[1]}/site-packages"


def environment(interpreter: str, python: tuple[int, int]) -> dict[str, Entry]:
    """The virtual environment without packages. `interpreter`: the base's, as ``usr/bin/python3.11``."""
    home = PurePosixPath("/") / PurePosixPath(interpreter).parent
    settings = f"home = {home}\ninclude-system-site-packages = false\nversion = {python[0]}.{python[1]}\n"
    return {f"{VENV}/pyvenv.cfg": File(settings.encode()), f"{VENV}/bin/python3": Link(f"/{interpreter}")}


class _Image(WheelDestination):
    """Takes what a wheel holds, and writes nothing."""

    def __init__(self, python: tuple[int, int], with_scripts: bool) -> None:
        self.files: dict[str, Entry] = {}
        self._packages = site_packages(python)
        self._with_scripts = with_scripts

    def write_script(self, name: str, module: str, attr: str, section: str) -> RecordEntry:
        if self._with_scripts:
            name, data = Script(name, module, attr, section).generate(PYTHON, "posix")  # type: ignore[arg-type]
            self.files[f"{VENV}/bin/{name}"] = File(data, executable=True)
        return RecordEntry(name, None, None)

    def write_file(
        self, scheme: Scheme, path: str | os.PathLike[str], stream: BinaryIO, is_executable: bool
    ) -> RecordEntry:
        path = os.fspath(path)
        # Headers, manual pages and programs of dependencies have nobody here who would read or run them.
        if scheme in ("purelib", "platlib") and not is_left_out(path):
            self.files[f"{self._packages}/{path}"] = File(stream.read(), is_executable)
        return RecordEntry(path, None, None)

    def finalize_installation(
        self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]
    ) -> None:
        """A RECORD would name files that are left out."""


def install_wheel(wheel: Wheel, python: tuple[int, int]) -> dict[str, Entry]:
    """Path in the image → file. Raises `RejectedError` where a file is not what the wheel's own RECORD says."""
    image = _Image(python, with_scripts=wheel.name == KIT)
    try:
        with WheelFile.open(wheel.path) as source:
            source.validate_record(validate_contents=True)
            install(source, image, additional_metadata={})
    except (InstallerError, zipfile.BadZipFile, OSError, ValueError) as error:
        raise RejectedError(f"{wheel.path}: {error}") from None
    return image.files
