"""YAML read strictly: what it says is what it looks like, and every error knows its line."""

import pytest

from edge_agent.policy.document import MAX_BYTES, Document, DocumentError, dotted
from edge_agent.records import Json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("0x10", "0x10"),
        ("010", "010"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        ("=", "="),
        ("<<", "<<"),
        ("true", True),
        ("false", False),
        ("True", "True"),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-7", -7),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("'1'", "1"),
        ('"a\\u00e9"', "aé"),
    ],
)
def test_plain_words(text: str, value: Json) -> None:
    found = Document(f"k: {text}".encode()).value["k"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        (b"a: 1\nb: 2\na: 3", 3, "key 'a' is there twice"),
        (b"a: 1\nb: &x 2", 2, "anchors and aliases"),
        (b"a: *x", 1, "anchors and aliases"),
        (b"a:\n  - !!binary aGk=", 2, "tags are not read: 'tag:yaml.org,2002:binary'"),
        (b"a: !!python/object:os.system x", 1, "tags are not read"),
        (b"!!set {a}", 1, "tags are not read"),
        (b"a: !!int x", 1, "tags are not read"),
        (b"a: !!float x", 1, "tags are not read"),
        (b"a: ! x", 1, "tags are not read"),
        (b"a: !own [x]", 1, "tags are not read: '!own'"),
        (b"a: 1\n1: 2", 2, "a key must be a text"),
        (b"? [a]\n: 1", 1, "a key must be a text"),
        (b"a: 1\nb: [", 2, "this is not YAML"),
        (b"a: 1\n\tb: 2", 2, "this is not YAML"),
        (b"a: 1\n--- \nb: 2", 2, "another document"),
        (b"a: 1\nb: \x00", 2, "special characters"),
        (b"a: 1\nb: \xff", 2, "not UTF-8"),
        (b'a: "\\UFFFFFFFF"', 0, "escape"),
        (b'a: "\\ud800"', 1, "surrogate"),
        (b"a: 9223372036854775808", 1, "64 bits"),
        (b"a: " + b"9" * 5000, 1, "64 bits"),
        (b"a: 1e999", 1, "too large"),
        (b"", 0, "nothing in it"),
        (b"# only a remark", 0, "nothing in it"),
        (b"[" * 60_000, 1, "nested more than 16"),
        (b"a: " + b"[" * 17 + b"]" * 17, 1, "nested more than 16"),
        (b"a: " + b"x" * MAX_BYTES, 0, "larger than 64 KiB"),
    ],
)
def test_what_is_refused(data: bytes, line: int, message: str) -> None:
    with pytest.raises(DocumentError, match=message) as caught:
        Document(data)
    assert caught.value.line == line


def test_lines() -> None:
    document = Document(b"# remark\nrules:\n  - name: a\n    when: |\n      x\n  - {name: b,\n     when: y}\n")
    assert document.line(("rules",)) == 2
    assert document.line(("rules", 0)) == 3
    assert document.line(("rules", 0, "when")) == 4
    assert document.line(("rules", 1, "when")) == 7
    assert document.line(("rules", 1, "when", "deeper")) == 7
    assert document.line(("absent",)) == 2


def test_a_byte_order_mark_is_no_matter() -> None:
    assert Document(b"\xef\xbb\xbfa: 1").value == {"a": 1}


def test_dotted() -> None:
    assert dotted(("payload", "readings", 2, "x")) == "payload.readings[2].x"
