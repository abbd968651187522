"""A rate limit is a window that slides."""

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.policy.limit import Limit, Window


def test_so_many_times_in_so_many_seconds() -> None:
    window = Window(Limit(times=2, per_s=60))
    assert [window.take(now) for now in (0.0, 1.0, 2.0, 59.9)] == [True, True, False, False]
    assert [window.take(now) for now in (60.0, 60.5, 61.0)] == [True, False, True]


def test_what_was_refused_is_not_counted() -> None:
    window = Window(Limit(times=1, per_s=10))
    assert window.take(0.0)
    assert not any(window.take(float(now)) for now in range(1, 10))
    assert window.take(10.0)


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 20), min_size=1, max_size=60),
    st.integers(1, 5),
    st.floats(0.1, 30),
)
def test_no_window_ever_holds_more(pauses: list[float], times: int, per_s: float) -> None:
    window, now, acted = Window(Limit(times, per_s)), 0.0, []
    for pause in pauses:
        now += pause
        if window.take(now):
            acted.append(now)
    for moment in acted:
        assert sum(1 for other in acted if 0 <= other - moment < per_s) <= times
