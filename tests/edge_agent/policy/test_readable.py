"""What of a sensor's JSON a policy may read, and what is left out, whole."""

import subprocess
import sys
from typing import Any

import pytest

from edge_agent.policy.readable import MAX_CHARS, MAX_DEPTH, MAX_ITEMS, readable


def test_json_is_kept_as_it_is() -> None:
    given = {"a": 1, "b": [1, 2.5, None, True, "é🏭"], "c": {"d": {"e": []}}, "f": [0.5] * MAX_ITEMS}
    kept, left_out = readable(given)
    assert kept == given
    assert not left_out
    assert kept["f"] is not given["f"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([0.5] * (MAX_ITEMS + 1), "more than 512 items"),
        ({str(n): n for n in range(MAX_ITEMS + 1)}, "more than 512 items"),
        ("x" * (MAX_CHARS + 1), "more than 16,384 characters"),
        (2**63, "an integer of more than 64 bits"),
        ("stop\0now", "a text with a NUL in it"),
        ("\ud800", "a text that is no Unicode"),
        ([1, [2, 2**63]], "an integer of more than 64 bits"),
        ({1: 2}, "the key 1 is no text"),
        (object(), "object is no JSON"),
    ],
)
def test_what_is_left_out(value: Any, why: str) -> None:
    assert readable({"ok": 1, "bad": value}) == ({"ok": 1}, {"bad": why})


def test_the_limits_themselves_are_kept() -> None:
    given = {"list": [1] * MAX_ITEMS, "text": "x" * MAX_CHARS, "low": -(2**63), "high": 2**63 - 1}
    assert readable(given) == (given, {})


def test_in_a_map_only_the_key_is_left_out() -> None:
    assert readable({"m": {"ok": 1, "bad": 2**64}}) == (
        {"m": {"ok": 1}},
        {"bad": "an integer of more than 64 bits"},
    )


def test_too_many_keys_leave_out_everything() -> None:
    assert readable({str(n): n for n in range(MAX_ITEMS + 1)}) == ({}, {"": "more than 512 items"})


def test_deep_nesting_is_left_out() -> None:
    def nested(depth: int) -> Any:
        return {"k": nested(depth - 1)} if depth else 1

    assert readable(nested(MAX_DEPTH))[1] == {}
    assert readable(nested(MAX_DEPTH + 1))[1] == {"k": f"nested more than {MAX_DEPTH} deep"}


def test_other_kinds_of_float_and_list_become_plain() -> None:
    class Celsius(float):
        pass

    kept, _ = readable({"t": Celsius(81.5), "l": (1, 2)})
    assert type(kept["t"]) is float
    assert kept["l"] == [1, 2]


def test_nesting_that_would_crash_the_library_does_not() -> None:
    """In a process of its own: what is guarded against is a segmentation fault."""
    script = """
import sys
sys.setrecursionlimit(200_000)
from edge_agent.policy.cel import Scope, compile_condition
from edge_agent.policy.situation import Situation
from edge_agent.records import Prediction
value = 1
for _ in range(50_000):
    value = {"k": value}
scope = Scope(Situation(value, Prediction("a", 1.0, {}), {}, {}, lambda a, b: 0), frozenset({"observation"}))
print(compile_condition("has(observation.k)").holds(scope))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "(True, None)\n"), done.stderr
