"""Finding recipes, and saying what is missing."""

from importlib.util import find_spec

import pytest

from edge_models.build.recipe import load_recipe, recipe_names, wheel_file
from edge_models.errors import ConfigError

HAS_EXTRA = find_spec("torch") is not None


def test_the_recipes_are_found_without_importing_them() -> None:
    assert recipe_names() == ["appliance", "shuttle", "trace"]


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
