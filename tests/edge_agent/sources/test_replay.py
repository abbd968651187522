"""Recordings: what each kind of file gives, pacing, repeating, and what is wrong with a file."""

import time
from pathlib import Path
from typing import Any

import pytest

from edge_agent.records import Malformed, Observation
from edge_agent.sources.base import SourceContext
from edge_agent.sources.replay import ReplaySource
from edge_models.bundle import Bundle
from edge_models.errors import ConfigError


def play(context: SourceContext, most: int = 100, **options: Any) -> list[Observation | Malformed]:
    """All that a source gives until it is exhausted."""
    source = ReplaySource(options, context)
    source.start()
    taken: list[Observation | Malformed] = []
    until = time.monotonic() + 20
    while not source.exhausted() and time.monotonic() < until:
        taken += source.take(most, 0.5)
    assert source.exhausted()
    assert source.take(10, 0) == []
    source.close()
    source.close()
    return taken


def values(taken: list[Observation | Malformed]) -> list[Any]:
    return [dict(t.values) if isinstance(t, Observation) else t.reason for t in taken]


def test_json_lines(tmp_path: Path, context: SourceContext) -> None:
    (tmp_path / "r.jsonl").write_bytes(
        b'{"n": 1}\n\noops\r\n[1]\n{"n": "' + b"x" * 600_000 + b'"}\n{"n": 2}\r\n{"n": 3}'
    )
    assert values(play(context, file="r.jsonl")) == [
        {"n": 1},
        "r.jsonl: line 3: no JSON: unexpected character, expected a JSON value: line 1 column 1 (char 0)",
        "r.jsonl: line 4: wanted a JSON object, came a list",
        "r.jsonl: line 5: more than 262144 bytes",
        {"n": 2},
        {"n": 3},
    ]


def test_csv_with_a_header(tmp_path: Path, context: SourceContext) -> None:
    (tmp_path / "r.csv").write_bytes(
        b'\xef\xbb\xbfspeed,state,note\r\n1.5,run,\r\n1,2\r\n-2,stop,"a, b"\r\n\r\nnan,run,\xff\r\n1e999,inf,' + b"\r\n"
    )
    assert values(play(context, file="r.csv")) == [
        {"speed": 1.5, "state": "run", "note": None},
        "r.csv: line 3: 2 cells, the header has 3",
        {"speed": -2.0, "state": "stop", "note": "a, b"},
        {"speed": "nan", "state": "run", "note": "\N{REPLACEMENT CHARACTER}"},
        {"speed": "1e999", "state": "inf", "note": None},
    ]


def test_a_cell_that_is_too_large_is_malformed_and_the_next_row_comes(tmp_path: Path, context: SourceContext) -> None:
    (tmp_path / "r.csv").write_text("a,b\n" + "x" * 200_000 + ",1\n2,3\n")
    large, good = values(play(context, file="r.csv"))
    assert "field larger than field limit" in large
    assert good == {"a": 2.0, "b": 3.0}


def test_golden_inputs_of_a_bundle(bundle: Bundle, tmp_path: Path, context: SourceContext) -> None:
    (file,) = tmp_path.glob("*.bundle")
    taken = values(play(context, most=7, file=file.name))
    assert len(taken) == len(bundle.golden.truth)
    assert [t["truth"] for t in taken] == list(bundle.golden.truth)
    assert [t["window"] for t in taken] == bundle.golden.inputs["window"].tolist()


def test_repeat_and_limit(tmp_path: Path, context: SourceContext) -> None:
    (tmp_path / "r.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    assert [v["n"] for v in values(play(context, most=3, file="r.jsonl", repeat=True, limit=5))] == [1, 2, 1, 2, 1]
    (tmp_path / "empty.jsonl").write_text("\n\n")
    assert play(context, file="empty.jsonl", repeat=True) == []


def test_a_rate_is_kept_and_what_was_due_meanwhile_comes_together(tmp_path: Path, context: SourceContext) -> None:
    (tmp_path / "r.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(1000)))
    source = ReplaySource({"file": "r.jsonl", "rate_per_s": 50, "limit": 21}, context)
    source.start()
    started = time.monotonic()
    assert len(source.take(100, 10)) == 1, "the first is due at once"
    taken = 1
    while not source.exhausted():
        taken += len(source.take(100, 10))
        assert taken <= 1 + (time.monotonic() - started) * 50
    assert taken == 21
    assert time.monotonic() - started >= 20 / 50
    source.close()


def test_take_waits_no_longer_than_it_may(tmp_path: Path, context: SourceContext) -> None:
    (tmp_path / "r.jsonl").write_text("{}\n{}\n")
    source = ReplaySource({"file": "r.jsonl", "rate_per_s": 0.001}, context)
    source.start()
    assert len(source.take(5, 0.01)) == 1
    assert source.take(5, 0.01) == []
    assert not source.exhausted()
    source.close()
    assert source.exhausted()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("r.csv", b"", "the first line must name every column"),
        ("r.csv", b"a,a\n1,2\n", "the first line must name every column, each by a name of its own"),
        ("r.csv", b"a,,b\n1,2,3\n", "the first line must name every column"),
        ("r.bundle", b"no bundle", "r.bundle: "),
    ],
)
def test_a_file_that_is_no_recording_is_refused_at_the_start(
    tmp_path: Path, context: SourceContext, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    source = ReplaySource({"file": name}, context)
    with pytest.raises(ConfigError) as caught:
        source.start()
    assert problem in str(caught.value)
    source.close()


def test_a_missing_file_is_refused_at_the_start(context: SourceContext) -> None:
    source = ReplaySource({"file": "none.jsonl"}, context)
    with pytest.raises(ConfigError, match=r"none.jsonl: No such file"):
        source.start()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "source replay: key 'file' is missing"),
        ({"file": "a.jsonl", "rate_per_sec": 5}, "unknown key 'rate_per_sec' (did you mean 'rate_per_s'?)"),
        ({"file": "a.jsonl", "rate_per_s": 0}, "rate_per_s: Input should be greater than 0 (came 0)"),
        ({"file": "a.parquet"}, "file 'a.parquet' ends in none of .jsonl, .csv, .bundle"),
    ],
)
def test_wrong_options_are_named(context: SourceContext, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ReplaySource(options, context)
    assert problem in str(caught.value)
