"""models/README.md's table is what the cards say."""

from pathlib import Path

import pytest

from edge_models.build.table import cards, markdown, rewritten
from edge_models.errors import ConfigError

README = Path(__file__).parents[3] / "models" / "README.md"


def test_the_readmes_table_is_made_from_the_cards() -> None:
    text = README.read_text(encoding="utf-8")
    table = markdown(cards())
    assert rewritten(text, table) == text, "run: python -m edge_models.build.table models/README.md"


def test_a_file_without_marks_is_left_alone() -> None:
    with pytest.raises(ConfigError, match="has no"):
        rewritten("# Models\n", "| a |")
