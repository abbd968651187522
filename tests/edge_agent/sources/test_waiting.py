"""The queue between a source's threads and its agent."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sources.waiting import Waiting

sizes = st.lists(st.integers(0, 50), max_size=40)


@given(sizes, st.integers(1, 10), st.integers(1, 100))
def test_push_keeps_the_newest_within_both_bounds_and_counts_the_rest(
    items: list[int], most: int, most_bytes: int
) -> None:
    waiting: Waiting[int] = Waiting(most, most_bytes)
    for n, size in enumerate(items):
        waiting.push(n, size)
    lost = waiting.dropped()
    kept = waiting.take(1000, 0)
    assert kept == list(range(lost, len(items)))
    assert len(kept) <= most
    assert len(kept) <= 1 or sum(items[n] for n in kept) <= most_bytes
    assert waiting.dropped() == 0


@given(sizes, st.integers(1, 10), st.integers(1, 100))
def test_offer_takes_in_order_or_says_no_and_changes_nothing(items: list[int], most: int, most_bytes: int) -> None:
    waiting: Waiting[int] = Waiting(most, most_bytes)
    taken_in = [n for n, size in enumerate(items) if waiting.offer(n, size)]
    assert waiting.dropped() == 0
    assert waiting.take(1000, 0) == taken_in
    assert len(taken_in) <= most
    assert len(taken_in) <= 1 or sum(items[n] for n in taken_in) <= most_bytes
    assert waiting.offer(1, most_bytes), "what was taken makes room"


def test_a_reader_gets_what_comes_while_it_waits() -> None:
    waiting: Waiting[str] = Waiting(10)
    threading.Timer(0.05, waiting.push, ("late", 4)).start()
    assert waiting.take(5, 20) == ["late"]


def test_closing_lets_a_reader_go() -> None:
    waiting: Waiting[str] = Waiting(10)
    got: list[list[str]] = []
    reader = threading.Thread(target=lambda: got.append(waiting.take(5, 60)))
    reader.start()
    waiting.close()
    reader.join(20)
    assert got == [[]]
