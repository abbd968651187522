"""Finding recipes, and saying what is missing."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from edge_models.build.catalogue import load_recipe, recipe_names
from edge_models.build.recipe import wheel_file
from edge_models.errors import ConfigError

HAS_EXTRA = find_spec("torch") is not None


def test_the_recipes_are_found_without_importing_them() -> None:
    assert recipe_names() == ["appliance", "minilm", "shelf-labels", "shuttle", "trace"]


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no recipe 'shutle': did you mean 'shuttle'\\?"):
        load_recipe("shutle")


@pytest.mark.skipif(HAS_EXTRA, reason="the extra `models` is installed")
def test_a_missing_extra_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'edge-agent-kit\[models\]' \(torch is missing\)"):
        load_recipe("trace")


def test_a_file_no_wheel_has_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"no_such_package's data\.csv is missing"):
        wheel_file("no_such_package", "data.csv")
    assert wheel_file("edge_models", "data/trace-1.bundle").is_file()


def test_a_recipe_of_another_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_recipes.py").write_text("RECIPE = 'theirs'\n")
    metadata = tmp_path / "their_recipes-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their-recipes\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[edge_models.recipes]\npump = their_recipes:RECIPE\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "pump" in recipe_names()
    found: object = load_recipe("pump")
    assert found == "theirs"
