"""When a site joins and renews: every clock is a number here. Source: sync/SPEC.md, section Enrolment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.enrol.schedule import (
    DAY_S,
    DOWN_S,
    FIRST_LOOK_S,
    HOUR_S,
    JOIN_AGAIN_S,
    REFUSED_AGAIN_S,
    RENEW_AGAIN_S,
    Held,
    Schedule,
    Seen,
)

DAY_US = 86_400_000_000
BEGAN_US = 1_800_000_000_000_000
HELD = Held(BEGAN_US, BEGAN_US + 31 * DAY_US, BEGAN_US + 91 * DAY_US, "used")
FRESH_US, DUE_US, ENDED_US = BEGAN_US + DAY_US, HELD.renew_us, HELD.ends_us


def most(_: float, high: float) -> float:
    return high


def seen(now_s: float, now_us: int = FRESH_US, offered: str | None = "used", online: bool = True) -> Seen:
    return Seen(now_s, now_us, offered, online)


def test_a_site_without_a_certificate_joins_at_once_with_the_token_that_lies_there() -> None:
    assert Schedule(None, 100.0, most).next(seen(100.0, offered="new")) == "join"


def test_without_a_token_it_does_nothing_until_there_is_one() -> None:
    schedule = Schedule(None, 0.0, most)
    assert schedule.next(seen(1e6, offered=None)) is None
    assert schedule.next(seen(1e6 + 5, offered="new")) == "join"


def test_a_certificate_that_is_not_due_is_left_alone_with_a_link_and_without() -> None:
    schedule = Schedule(HELD, 0.0, most)
    assert schedule.next(seen(FIRST_LOOK_S)) is None
    assert schedule.next(seen(DAY_S)) is None


def test_a_due_certificate_is_renewed_soon_after_the_start_and_not_by_all_sites_at_once() -> None:
    schedule = Schedule(HELD, 0.0, most)
    assert schedule.next(seen(FIRST_LOOK_S - 1, DUE_US)) is None
    assert schedule.next(seen(FIRST_LOOK_S, DUE_US - 1)) is None
    assert schedule.next(seen(FIRST_LOOK_S, DUE_US)) == "renew"
    assert Schedule(HELD, 0.0, lambda low, _: low).next(seen(0.0, DUE_US)) == "renew"


def test_one_that_ran_out_is_renewed_too() -> None:
    assert Schedule(HELD, 0.0, most).next(seen(FIRST_LOOK_S, ENDED_US + 300 * DAY_US, online=False)) == "renew"


def test_a_clock_of_1970_asks_the_hub_and_then_goes_by_its_clock() -> None:
    schedule = Schedule(HELD, 0.0, most)
    assert schedule.next(seen(FIRST_LOOK_S, 0)) == "renew"
    schedule.not_due(DUE_US - 2 * 3_600_000_000, FIRST_LOOK_S)
    assert schedule.next(seen(FIRST_LOOK_S + HOUR_S, 0)) is None
    assert schedule.next(seen(FIRST_LOOK_S + 2 * HOUR_S, 0)) == "renew"


def test_a_clock_of_2090_renews_nothing_that_is_not_due_by_the_hubs() -> None:
    schedule = Schedule(HELD, 0.0, most)
    wrong_us = BEGAN_US + 60 * 365 * DAY_US
    assert schedule.next(seen(FIRST_LOOK_S, wrong_us)) == "renew"
    schedule.not_due(FRESH_US, FIRST_LOOK_S)
    for hour in range(1, 24 * 29):
        assert schedule.next(seen(FIRST_LOOK_S + hour * HOUR_S, wrong_us)) is None


@given(st.lists(st.integers(0, 2**53), min_size=50, max_size=200))
def test_whatever_both_clocks_say_a_certificate_is_renewed_once_a_day_at_most(clocks: list[int]) -> None:
    schedule, renewed = Schedule(HELD, 0.0, most), 0
    for hour, now_us in enumerate(clocks):
        if schedule.next(seen(FIRST_LOOK_S + hour * HOUR_S, now_us, online=False)) == "renew":
            renewed += 1
            schedule.got(HELD, FIRST_LOOK_S + hour * HOUR_S)
    assert renewed <= 1 + len(clocks) // 24


def test_a_link_that_stays_down_may_mean_that_the_hub_sees_the_certificate_ended() -> None:
    schedule = Schedule(HELD, 0.0, most)
    assert schedule.next(seen(DOWN_S - 1, online=False)) is None
    assert schedule.next(seen(DOWN_S, online=False)) == "renew"
    schedule.not_due(FRESH_US, DOWN_S)
    assert schedule.next(seen(DOWN_S + HOUR_S - 1, online=False)) is None
    assert schedule.next(seen(DOWN_S + HOUR_S, online=False)) == "renew"


def test_a_link_that_was_up_meanwhile_is_not_down_for_long() -> None:
    schedule = Schedule(HELD, 0.0, most)
    assert schedule.next(seen(DOWN_S - 1, online=True)) is None
    assert schedule.next(seen(DOWN_S, online=False)) is None
    assert schedule.next(seen(2 * DOWN_S - 1, online=False)) is None
    assert schedule.next(seen(2 * DOWN_S, online=False)) == "renew"


def test_another_token_is_an_order_to_join_anew_and_comes_before_a_renewal() -> None:
    schedule = Schedule(HELD, 0.0, most)
    assert schedule.next(seen(0.0, offered="other")) == "join"
    assert schedule.next(seen(FIRST_LOOK_S, DUE_US, offered="other")) == "join"


def test_a_refused_token_is_not_shown_again_while_a_certificate_counts_and_the_site_renews() -> None:
    schedule = Schedule(HELD, 0.0, most)
    schedule.refused("join", seen(0.0, offered="spent"))
    assert schedule.next(seen(FIRST_LOOK_S, offered="spent")) is None
    assert schedule.next(seen(30 * DAY_S, offered="spent")) is None
    assert schedule.next(seen(30 * DAY_S, DUE_US, offered="spent")) == "renew"
    assert schedule.next(seen(30 * DAY_S, offered="fresh")) == "join"


def test_without_a_certificate_a_refused_token_is_shown_again_after_an_hour_and_another_at_once() -> None:
    schedule = Schedule(None, 0.0, lambda low, _: low)
    schedule.refused("join", seen(0.0, offered="spent"))
    assert schedule.next(seen(REFUSED_AGAIN_S - 1, offered="spent")) is None
    assert schedule.next(seen(5.0, offered="fresh")) == "join"
    assert schedule.next(seen(REFUSED_AGAIN_S, offered="spent")) == "join"


def test_a_refused_renewal_is_asked_again_after_an_hour() -> None:
    schedule = Schedule(HELD, 0.0, most)
    schedule.refused("renew", seen(100.0, DUE_US))
    assert schedule.next(seen(100.0 + REFUSED_AGAIN_S - 1, DUE_US)) is None
    assert schedule.next(seen(100.0 + REFUSED_AGAIN_S, DUE_US)) == "renew"


@pytest.mark.parametrize(
    ("held", "now_us", "longest"),
    [(None, FRESH_US, JOIN_AGAIN_S), (HELD, DUE_US, RENEW_AGAIN_S), (HELD, ENDED_US, JOIN_AGAIN_S)],
)
def test_tries_in_vain_come_ever_less_often_and_never_end(held: Held | None, now_us: int, longest: float) -> None:
    schedule, now_s, waits = Schedule(held, 0.0, most), FIRST_LOOK_S, []
    for _ in range(20):
        now = seen(now_s, now_us, offered="used" if held else "new")
        assert schedule.next(now) is not None
        schedule.in_vain(now)
        began_s = now_s
        while schedule.next(seen(now_s, now_us, offered="used" if held else "new")) is None:
            now_s += 1.0
        waits.append(now_s - began_s)
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (5.0, longest)


def test_the_hub_may_ask_for_more_patience() -> None:
    schedule = Schedule(None, 0.0, most)
    schedule.in_vain(seen(0.0, offered="new"), retry_after_s=50.0)
    assert schedule.next(seen(49.0, offered="new")) is None
    assert schedule.next(seen(50.0, offered="new")) == "join"
