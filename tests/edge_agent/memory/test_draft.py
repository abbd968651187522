"""From values to the text of a body: whatever they are, it can be written and sent."""

import json

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.memory.draft import to_body, well_formed
from edge_sync.rows import MAX_BODY_BYTES

SURROGATES = st.characters(codec=None)
WORDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(SURROGATES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(SURROGATES), inner, max_size=3),
)


def test_a_body_too_large_is_replaced_by_its_size() -> None:
    body = to_body({"picture": "x" * MAX_BODY_BYTES})
    assert len(body) < 200
    assert '"too_large_bytes"' in body


def test_facts_go_before_anything_else() -> None:
    decision = {"do": {"tool": "alert", "args": {"message": "x" * 20_000}}, "facts": {"a": "x" * 60_000, "b": 1}}
    body = json.loads(to_body(decision))
    assert body["do"] == decision["do"]
    assert body["facts"]["left_out"] == 2
    assert body["facts"] == json.loads(to_body(dict(decision)))["facts"], "the same facts have the same hash"


def test_a_body_that_is_too_large_without_its_facts_is_replaced_whole() -> None:
    body = json.loads(to_body({"facts": {"a": 1}, "picture": "x" * MAX_BODY_BYTES}))
    assert body["keys"] == ["facts", "picture"]


def test_facts_that_are_no_map_are_like_any_other_member() -> None:
    assert "too_large_bytes" in to_body({"facts": "x" * MAX_BODY_BYTES})


def test_half_a_surrogate_pair_is_replaced_and_a_pair_is_joined() -> None:
    assert to_body({"\udcff": "a\ud800b"}) == '{"\ufffd":"a\ufffdb"}'
    assert well_formed("\ud83d\ude00 ok é") == "\U0001f600 ok é"
    assert "\ufffd" in to_body({"\udcff" * 40: "x" * MAX_BODY_BYTES})


@given(st.dictionaries(st.text(SURROGATES), WORDS, max_size=4))
def test_every_body_is_json_in_utf8_of_a_size_that_can_be_sent(value: dict[str, object]) -> None:
    body = to_body(value)
    assert len(body.encode()) <= MAX_BODY_BYTES
    assert isinstance(json.loads(body), dict)
