"""A join token's text. sync/SPEC.md, section Enrolment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_models.errors import RejectedError
from edge_sync.enrol.token import JoinToken, basic, group_name, parse_token, read_basic

PIN, SECRET = "ab" * 32, "s3cret-_" * 5


@pytest.mark.parametrize(("name", "group"), [("plant-01", None), ("_group-north", "north")])
def test_a_token_is_what_its_text_says(name: str, group: str | None) -> None:
    token = JoinToken(PIN, name, SECRET)
    assert token.text() == f"EK1{PIN}::{name}:{SECRET}"
    assert parse_token(f"  {token.text()}\n") == token
    assert token.group == group
    assert read_basic(basic(token)) == (name, SECRET)


def test_a_group_has_a_name_that_no_site_has() -> None:
    assert group_name("north") == "_group-north"
    with pytest.raises(RejectedError, match="group 'No:rth'"):
        group_name("No:rth")


@pytest.mark.parametrize(
    "text",
    [
        "",
        SECRET,
        f"EK2{PIN}::plant-01:{SECRET}",
        f"EK1{PIN[:-1]}::plant-01:{SECRET}",
        f"EK1{PIN.upper()}::plant-01:{SECRET}",
        f"EK1{PIN}:plant-01:{SECRET}",
        f"EK1{PIN}::Plant:{SECRET}",
        f"EK1{PIN}::fleet:{SECRET}",
        f"EK1{PIN}::_hub:{SECRET}",
        f"EK1{PIN}::_group-:{SECRET}",
        f"EK1{PIN}::plant-01:{SECRET}:more",
        f"EK1{PIN}::plant-01:",
        f"EK1{PIN}::plant-01:{SECRET}\nEK1",
    ],
)
def test_what_is_no_token_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(RejectedError, match="no join token") as refused:
        parse_token(text)
    assert SECRET not in str(refused.value)


def test_a_token_that_is_printed_shows_no_secret() -> None:
    assert SECRET not in repr(JoinToken(PIN, "plant-01", SECRET))


@given(st.text())
def test_only_a_refusal_leaves_the_parsers(text: str) -> None:
    read_basic(text)
    read_basic(f"Basic {text}")
    try:
        parse_token(text)
    except RejectedError:
        return
    raise AssertionError(text)


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic %%%", "Bearer cGxhbnQ6eA==", "Basic cGxhbnQ=", "Basic Og==", "Basic /w=="]
)
def test_a_header_that_shows_nothing(header: str) -> None:
    assert read_basic(header) is None
