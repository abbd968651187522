"""Which wheels an image takes of a folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_k3s.image.target import Target, parse_platform
from edge_k3s.image.wheels import choose, read_house
from edge_models.errors import ConfigError

AMD64 = Target("linux/amd64", (3, 11), (2, 36))
ARM64 = Target("linux/arm64", (3, 11), (2, 36))


def chosen(folder: Path, *extras: str, target: Target = AMD64) -> dict[str, str]:
    """Name → file name."""
    return {name: wheel.path.name for name, wheel in choose(read_house(folder), extras, target, {}).items()}


def test_the_kit_and_what_it_requires_but_pip(house: Path) -> None:
    assert list(chosen(house)) == ["edge-agent-kit", "numbers-in-rows"]
    assert list(chosen(house, "hub")) == ["edge-agent-kit", "numbers-in-rows", "web"]


def test_of_two_the_newer_that_everybody_can_live_with(wheel: Callable[..., Path], tmp_path: Path) -> None:
    wheel("edge-agent-kit", "0.1.0", "a", "b")
    for version in ("1.9", "1.10", "2.0"):
        wheel("a", version)
    # Asked for late: `a` was chosen before it was known who else wants which.
    wheel("b", "1.0", "c")
    wheel("c", "1.0", "a<2")
    assert chosen(tmp_path / "wheels")["a"] == "a-1.10-py3-none-any.whl"


def test_a_wheel_for_the_machine_is_better_than_one_for_any(wheel: Callable[..., Path], tmp_path: Path) -> None:
    wheel("edge-agent-kit", "0.1.0", "a")
    for tag in (
        "py3-none-any",
        "cp311-cp311-manylinux2014_x86_64",
        "cp311-cp311-manylinux_2_34_x86_64",
        "cp311-cp311-manylinux_2_40_x86_64",
        "cp311-cp311-musllinux_1_2_x86_64",
        "cp312-cp312-manylinux_2_34_x86_64",
        "cp310-abi3-manylinux_2_28_aarch64",
    ):
        wheel("a", "1.0", tag=tag)
    assert chosen(tmp_path / "wheels")["a"] == "a-1.0-cp311-cp311-manylinux_2_34_x86_64.whl"
    assert chosen(tmp_path / "wheels", target=ARM64)["a"] == "a-1.0-cp310-abi3-manylinux_2_28_aarch64.whl"


def test_markers_are_of_the_image_and_not_of_who_builds(wheel: Callable[..., Path], tmp_path: Path) -> None:
    wheel(
        "edge-agent-kit", "0.1.0",
        'a ; platform_machine == "aarch64"', 'b ; python_version < "3.11"', 'c ; sys_platform == "win32"',
    )  # fmt: skip
    wheel("a")
    assert list(chosen(tmp_path / "wheels", target=ARM64)) == ["a", "edge-agent-kit"]
    assert list(chosen(tmp_path / "wheels", target=AMD64)) == ["edge-agent-kit"]


def test_what_is_missing_or_does_not_fit_is_named(wheel: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    with pytest.raises(ConfigError, match="there are no wheels"):
        read_house(folder)
    wheel("edge-agent-kit", "0.1.0", "a>=2")
    with pytest.raises(ConfigError, match="no wheel of a, which edge-agent-kit requires"):
        chosen(folder)
    wheel("a", "1.0", tag="cp311-cp311-win_amd64")
    with pytest.raises(ConfigError, match=r"no wheel of a runs on linux/amd64 with Python 3.11 and glibc 2.36"):
        chosen(folder)
    wheel("a", "1.0")
    with pytest.raises(ConfigError, match=r"a-1.0-py3-none-any.whl does not fit: edge-agent-kit requires a>=2"):
        chosen(folder)
    (folder / "b-1.whl").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"number of parts.*b-1"):
        read_house(folder)


def test_a_file_that_is_no_wheel_is_named(tmp_path: Path) -> None:
    (tmp_path / "edge_agent_kit-0.1.0-py3-none-any.whl").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match=r"edge_agent_kit-0.1.0-py3-none-any.whl: no wheel"):
        chosen(tmp_path)


def test_only_platforms_that_we_build_for() -> None:
    with pytest.raises(ConfigError, match="write one of linux/amd64, linux/arm64"):
        parse_platform("linux/riscv64")
