"""How often a label was seen lately, whatever the clock does."""

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import Journal
from edge_agent.memory.queries import recent_predictions
from edge_agent.memory.schema import reading
from edge_agent.recent import HORIZON_S, MAX_TIMES, Recent

NOW_US = 1_700_000_000_000_000
SECOND, HOUR, YEAR = 1_000_000, 3_600_000_000, 365 * 86_400_000_000


def test_it_counts_what_lies_within_the_seconds() -> None:
    recent = Recent([("worn", NOW_US - 90 * SECOND), ("worn", NOW_US - 30 * SECOND)])
    recent.add("worn", NOW_US)
    count = recent.counter(NOW_US)
    assert [count("worn", seconds) for seconds in (10, 60, 120)] == [1, 2, 3]
    assert count("broken", 60) == 0


def test_a_clock_that_was_ahead_for_a_moment_is_forgotten_when_the_window_has_passed() -> None:
    recent = Recent()
    for i in range(50):
        recent.add("broken", NOW_US + YEAR + i)
    recent.add("normal", NOW_US)  # set right; the label that was seen meanwhile does not come again
    assert recent.counter(NOW_US)("broken", 60) == 50
    recent.add("normal", NOW_US + 2 * HOUR)
    assert recent.counter(NOW_US + 2 * HOUR)("broken", HORIZON_S) == 0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-5 * HOUR, 5 * HOUR)), max_size=40))
def test_nothing_is_ever_counted_as_yet_to_come(seen: list[tuple[str, int]]) -> None:
    recent = Recent()
    for i, (label, offset) in enumerate(seen, 1):
        recent.add(label, NOW_US + offset)
        known = [times for times in recent._times.values() if times]
        assert all(times == sorted(times) and times[-1] <= NOW_US + offset for times in known)
        assert sum(map(len, known)) == i


def test_the_oldest_of_very_many_are_forgotten() -> None:
    recent = Recent(("a", NOW_US + i) for i in range(MAX_TIMES + 1))
    assert 0 < recent.counter(NOW_US + MAX_TIMES)("a", HORIZON_S) <= MAX_TIMES


def test_predictions_of_a_time_to_come_are_no_seed(journal: Journal) -> None:
    for at_us in (NOW_US + YEAR, NOW_US - 2 * HOUR, NOW_US - SECOND, NOW_US):
        journal.write([Draft("telemetry", "prediction", "press", at_us, "{}", label="worn", score=0.5)])
    with reading(journal.path) as db:
        seed = list(recent_predictions(db, "press", NOW_US - HOUR, NOW_US, MAX_TIMES))
    assert seed == [("worn", NOW_US - SECOND), ("worn", NOW_US)]
