"""Decoding: whatever bytes come, a JSON object the journal can write again or a reason; never another exception."""

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sources.decode import EXCERPT_CHARS, MAX_DEPTH, MAX_MESSAGE_BYTES, excerpt, read_object
from edge_models.errors import RejectedError

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    # A surrogate alone is no character, so no JSON text can hold one.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inside),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values))
def test_every_object_comes_through(value: dict[str, Any]) -> None:
    assert read_object(orjson.dumps(value)) == value


@given(st.binary(max_size=300) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_an_object_or_rejected(payload: bytes) -> None:
    assert len(excerpt(payload)) <= EXCERPT_CHARS
    assert excerpt(payload).isprintable()
    with contextlib.suppress(RejectedError):
        orjson.dumps(read_object(payload))


@given(st.text(alphabet='{}[]",:1 \\u0', max_size=400))
def test_nearly_json_is_an_object_or_rejected(text: str) -> None:
    with contextlib.suppress(RejectedError):
        assert isinstance(read_object(text.encode()), dict)


@given(st.integers(1, 1500), st.booleans())
def test_depth_is_bounded_and_what_passes_can_be_written_again(depth: int, lists: bool) -> None:
    left, right = ('{"a":[', "]}") if lists else ('{"a":{"a":', "}}")
    half = (depth + 1) // 2
    payload = (left * half + ("" if lists else "1") + right * half).encode()
    if half * 2 <= MAX_DEPTH:
        orjson.dumps(read_object(payload))
    else:
        with pytest.raises(RejectedError):
            read_object(payload)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    value = {"rows": [[i, [i]] for i in range(1000)]}
    assert read_object(orjson.dumps(value)) == value


def test_size_is_bounded() -> None:
    just = b'{"a":"' + b"x" * (MAX_MESSAGE_BYTES - 8) + b'"}'
    assert len(read_object(just)["a"]) == MAX_MESSAGE_BYTES - 8
    with pytest.raises(RejectedError, match="262145 bytes, the most is 262144"):
        read_object(just + b" ")


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"[]", "a list"),
        (b'"a"', "text"),
        (b"1", "a number"),
        (b"1.5", "a number"),
        (b"true", "true"),
        (b"null", "null"),
    ],
)
def test_what_is_no_object_is_named(payload: bytes, kind: str) -> None:
    with pytest.raises(RejectedError, match=f"wanted a JSON object, came {kind}"):
        read_object(payload)
