"""What an image is for: a platform, and the Python and C library of its base."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast, get_args

from packaging.tags import Tag, compatible_tags, cpython_tags

from edge_models.errors import ConfigError

Platform = Literal["linux/amd64", "linux/arm64"]

_MACHINES: dict[str, str] = {"amd64": "x86_64", "arm64": "aarch64"}

_OLD_NAMES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
"""glibc's minor version → what wheels for it were called. Source: PEP 600, legacy tags."""


@dataclass(frozen=True)
class Target:
    """Where the image's Python runs."""

    platform: Platform
    python: tuple[int, int]
    glibc: tuple[int, int]

    @property
    def architecture(self) -> str:
        """Debian's and OCI's word for the processor."""
        return self.platform.partition("/")[2]

    @property
    def machine(self) -> str:
        """The kernel's word for the processor."""
        return _MACHINES[self.architecture]

    @cached_property
    def platforms(self) -> tuple[str, ...]:
        """Platform tags of wheels that run there, best first."""
        major, newest = self.glibc
        names = []
        for minor in range(newest, 4, -1):
            names.append(f"manylinux_{major}_{minor}_{self.machine}")
            # The two oldest were never for anything but x86.
            if minor in _OLD_NAMES and (minor == 17 or self.machine == "x86_64"):
                names.append(f"{_OLD_NAMES[minor]}_{self.machine}")
        return (*names, f"linux_{self.machine}")

    @cached_property
    def ranks(self) -> dict[Tag, int]:
        """Tags of wheels that run there → how good they are, 0 the best."""
        ours = [*cpython_tags(self.python, platforms=self.platforms)]
        ours += compatible_tags(self.python, f"cp{self.python[0]}{self.python[1]}", self.platforms)
        return {tag: rank for rank, tag in reversed([*enumerate(ours)])}

    def environment(self, extra: str) -> dict[str, str]:
        """What the markers of requirements are held against, whatever runs here."""
        python = f"{self.python[0]}.{self.python[1]}"
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{python}.0",
            "python_version": python,
            "sys_platform": "linux",
            "extra": extra,
        }


def parse_platform(text: str) -> Platform:
    """Raises `ConfigError` for a platform we do not build for."""
    if text not in get_args(Platform):
        raise ConfigError(f"--platform {text!r}: write one of {', '.join(get_args(Platform))}")
    return cast(Platform, text)
