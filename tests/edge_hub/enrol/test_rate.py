"""How often somebody may ask."""

from hypothesis import given
from hypothesis import strategies as st

from edge_hub.enrol import rate
from edge_hub.enrol.rate import RateLimit, address_key


def test_a_burst_and_then_one_at_a_time() -> None:
    limit = RateLimit(burst=3, per_s=0.5)
    assert [limit.take("a", 10.0) for _ in range(4)] == [0, 0, 0, 2.0]
    assert limit.take("b", 10.0) == 0
    assert limit.take("a", 11.0) == 1.0
    assert limit.take("a", 12.0) == 0
    assert limit.take("a", 12.0) == 2.0


@given(st.lists(st.floats(0, 50), max_size=200))
def test_nobody_gets_more_than_burst_and_rate(pauses: list[float]) -> None:
    limit, now, had = RateLimit(burst=5, per_s=0.2), 0.0, 0
    for pause in pauses:
        now += pause
        had += limit.take("a", now) == 0
    assert had <= 5 + 0.2 * now + 1e-6


@given(st.floats(0, 100))
def test_who_waits_as_long_as_told_gets_one(at: float) -> None:
    limit = RateLimit(burst=1, per_s=0.3)
    limit.take("a", at)
    wait = limit.take("a", at)
    assert wait > 0
    assert limit.take("a", at + wait + 1e-6) == 0


def test_it_remembers_so_many_and_no_more() -> None:
    limit = RateLimit(burst=1, per_s=0.001)
    for number in range(rate._MAX_KEYS + 50):
        assert limit.take(str(number), 0.0) == 0
    assert len(limit._left) == rate._MAX_KEYS
    assert limit.take(str(rate._MAX_KEYS), 0.0) > 0


def test_a_house_is_one_address() -> None:
    assert address_key("192.0.2.7") == "192.0.2.7"
    assert address_key("::ffff:192.0.2.7") == "192.0.2.7"
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff:1") == "2001:db8::/64"
    assert address_key("2001:db8:0:1::1") != address_key("2001:db8::1")
    assert address_key("fe80::1%eth0") == "fe80::/64"
    assert len(address_key("x" * 500)) == 64
