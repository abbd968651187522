"""The walk that explains a record, over records in memory."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sync.explain import MAX_CAUSES, MAX_EFFECTS, Explanation, explain


@dataclass(frozen=True)
class Note:
    """A record, as far as walking needs it."""

    id: str
    ref: str | None = None


def around(asked: str, *notes: Note) -> Explanation[Note]:
    held = {note.id: note for note in notes}
    return explain(held[asked], held.get, lambda cause: [note for note in notes if note.ref == cause.id])


def ids(found: Explanation[Note]) -> list[str]:
    return [note.id for note in found.chain]


CHAIN = (Note("o"), Note("p", "o"), Note("d", "p"), Note("yes", "d"), Note("act", "d"), Note("other", "x"))


@pytest.mark.parametrize("asked", ["o", "p", "d"])
def test_the_chain_is_told_oldest_first_from_whichever_record(asked: str) -> None:
    assert around(asked, *CHAIN) == Explanation(CHAIN[:5], ())


def test_of_an_action_only_its_own_causes_are_told() -> None:
    assert ids(around("act", *CHAIN)) == ["o", "p", "d", "act"]


def test_a_cause_that_is_not_held_is_named() -> None:
    assert around("d", *CHAIN[2:]) == Explanation(CHAIN[2:5], ("p",))


def test_records_that_follow_from_each_other_are_told_once() -> None:
    assert ids(around("a", Note("a", "b"), Note("b", "a"))) == ["b", "a"]
    assert ids(around("a", Note("a", "a"))) == ["a"]


def test_a_chain_is_bounded() -> None:
    long = [Note("0"), *(Note(str(n), str(n - 1)) for n in range(1, 500))]
    assert len(around("499", *long).chain) == MAX_CAUSES + 1
    assert len(around("0", *long).chain) == MAX_EFFECTS + 1
    wide = [Note("0"), *(Note(str(n), "0") for n in range(1, 500))]
    assert len(around("0", *wide).chain) == MAX_EFFECTS + 1


@given(st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=1, max_size=10), st.data())
def test_any_links_are_walked_to_an_end(refs: list[int | None], data: st.DataObject) -> None:
    notes = [Note(str(n), None if ref is None else str(ref)) for n, ref in enumerate(refs)]
    asked = data.draw(st.sampled_from(notes)).id
    found = ids(around(asked, *notes))
    assert asked in found
    assert len(found) == len(set(found))
