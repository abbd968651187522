"""`edge-agent policy`: exit codes, data on stdout, errors on stderr one a line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_cli.policy import app

EXAMPLE = Path(__file__).parents[2] / "examples" / "policies" / "press-guard.yaml"


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    path = tmp_path / "failing.yaml"
    path.write_text(EXAMPLE.read_text().replace("expect: all-well", "expect: stop-the-line"))
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.yaml"
    path.write_text(EXAMPLE.read_text().replace("facts.maint", "fact.maint").replace("tool: alert", "tol: alert"))
    return path


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_check_a_good_policy() -> None:
    code, out, err = run("check", EXAMPLE)
    assert (code, err) == (0, "")
    assert out.endswith("ok: press-guard version 3, 3 rules, 7 cases, tools: alert, mqtt.publish\n")


def test_check_says_one_line_an_error_and_goes_on(broken: Path, tmp_path: Path) -> None:
    code, out, err = run("check", broken, tmp_path / "absent.yaml", EXAMPLE)
    assert code == 2
    assert [line.startswith(f"error: {tmp_path}") for line in err.splitlines()] == [True] * 3
    assert "(did you mean 'tool'?)" in err
    assert "ok: press-guard" in out


def test_check_json(broken: Path) -> None:
    code, out, _ = run("check", EXAMPLE, broken, "--json")
    report = json.loads(out)
    assert (code, report["ok"]) == (2, False)
    good, bad = report["files"]
    assert (good["policy"], good["version"], good["errors"]) == ("press-guard", 3, [])
    assert good["tools"] == ["alert", "mqtt.publish"]
    assert good["labels"] == ["fault-c", "normal"]
    assert bad["file"] == str(broken)
    assert len(bad["errors"]) == 2


def test_test_passes() -> None:
    code, out, err = run("test", EXAMPLE)
    assert (code, err) == (0, "")
    assert out.endswith("7 of 7 cases passed\n")


def test_test_says_what_was_expected_and_what_came(failing: Path) -> None:
    code, out, _ = run("test", failing)
    assert code == 1
    assert "case 'all is well' failed\n  expected  stop-the-line\n  got       all-well\n" in out
    assert "  stop-the-line: false\n  call-a-person: false\n  all-well: true\n" in out
    assert out.endswith("6 of 7 cases passed\n")


def test_test_json(failing: Path) -> None:
    code, out, _ = run("test", failing, EXAMPLE, "--json")
    report = json.loads(out)
    assert (code, report["ok"]) == (1, False)
    wrong = [each for each in report["files"][0]["results"] if not each["passed"]]
    assert [(each["case"], each["expected"], each["got"]) for each in wrong] == [
        ("all is well", "stop-the-line", "all-well")
    ]
    first = report["files"][1]["results"][0]
    assert first["got_with"]["topic"] == "line/stop"
    assert first["conditions"] == [{"rule": "stop-the-line", "value": True, "error": None}]


def test_test_of_a_broken_policy_exits_2_even_where_another_fails(broken: Path, failing: Path) -> None:
    assert run("test", broken, failing)[0] == 2


def test_test_says_when_there_are_no_cases(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    path.write_text('policy: p\nversion: 1\nrules: [{name: a, when: "true"}]')
    code, out, _ = run("test", path)
    assert (code, out) == (0, f"{path}: no cases: add some under `cases:`\n")


def test_help_has_examples() -> None:
    for command in ("check", "test"):
        assert f"Example: edge-agent policy {command}" in " ".join(run(command, "--help")[1].split())
