"""Which rule counts, and what is none."""

import pytest

from edge_models.errors import RejectedError
from edge_sync.keep import DAY_US, Keep, KeepRule


def test_the_most_exact_rule_counts_and_kind_comes_before_agent() -> None:
    rules = [("*", "*", 1), ("*", "press", 2), ("decision", "*", 3), ("decision", "press", 4)]
    keep = Keep(KeepRule(*rule) for rule in rules)
    asked = [("event", "oven"), ("event", "press"), ("decision", "oven"), ("decision", "press")]
    assert [keep.age_us(*each) for each in asked] == [days * DAY_US for days in (1, 2, 3, 4)]
    assert keep.least_us == DAY_US


def test_what_no_rule_matches_is_kept() -> None:
    keep = Keep([KeepRule("decision", "press", 4)])
    assert keep.age_us("decision", "oven") is keep.age_us("event", "press") is None
    assert keep
    assert not Keep([])
    assert Keep([]) == Keep([]) != keep


@pytest.mark.parametrize("rule", [("picture", "*", 1), ("*", "*", 0), ("*", "*", 36_501), ("*", "", 1), ("", "*", 1)])
def test_what_is_no_rule_is_refused(rule: tuple[str, str, int]) -> None:
    with pytest.raises(RejectedError):
        KeepRule(*rule)
