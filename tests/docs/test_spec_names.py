"""Papers name the tests that hold what they promise: every test they name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PAPERS = sorted(
    path
    for pattern in ("*.md", "*/*.md", "docs/adr/*.md")
    for path in ROOT.glob(pattern)
    if not path.is_relative_to(ROOT / "tests")
)


def names_in(text: str) -> set[str]:
    """The tests that a text names."""
    return set(re.findall(r"\btest_\w+", text))


def all_there() -> set[str]:
    """Every test function, and every module of tests."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found.add(path.stem)
        found.update(re.findall(r"^\s*(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE))
    return found


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_that_a_paper_names_is_there(paper: Path) -> None:
    assert sorted(names_in(paper.read_text()) - all_there()) == []


@pytest.mark.parametrize("paper", ["sync/SPEC.md", "edge_agent/MEMORY.md", "models/DELTA.md"])
def test_every_promise_of_a_specification_names_what_holds_it(paper: str) -> None:
    items = [item for item in re.split(r"\n(?=- |\n|#|\|)", (ROOT / paper).read_text()) if item.startswith("- ")]
    promises = [item for item in items if "SHALL" in item]
    assert len(promises) > 15, "a change of form must not leave them unread"
    assert [item for item in promises if not names_in(item)] == []
