"""What becomes of the checks after one: left out, failed, not reached; and how a line says it."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from edge_cluster import story
from edge_cluster.kubectl import Done
from edge_cluster.outcome import Failed, Outcome, Skipped, Unfit, line, total
from edge_cluster.story import Check, unknown_keys
from edge_cluster.trial import Trial
from edge_models.errors import RetryableError


class Nobody:
    """As much of a trial as the order of checks needs."""

    def __init__(self) -> None:
        self.notes: list[str] = []


def holds(_: Trial) -> str:
    return "3 of 3"


def raises(error: Exception) -> Callable[[Trial], str]:
    def check(_: Trial) -> str:
        raise error

    return check


def outcomes(monkeypatch: pytest.MonkeyPatch, *checks: Check, without: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    monkeypatch.setattr(story, "STORY", checks)
    return [(each.state, each.detail) for each in story.run(cast(Trial, Nobody()), without)]


def test_a_check_that_holds_says_what_came_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcomes(monkeypatch, Check("a", "a", holds)) == [("ok", "3 of 3")]


@pytest.mark.parametrize("error", [Failed("no pod"), RetryableError("no pod")])
def test_a_failure_leaves_the_rest_its_turn(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    said = outcomes(monkeypatch, Check("a", "a", raises(error)), Check("b", "b", holds))
    assert said == [("FAILED", "no pod"), ("ok", "3 of 3")]


def test_what_needs_a_check_that_failed_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = Check("a", "a", raises(Failed("no")), needed=True), Check("b", "b", holds), Check("c", "c", holds)
    assert outcomes(monkeypatch, *checks) == [("FAILED", "no"), ("not reached", ""), ("not reached", "")]


def test_what_a_cluster_cant_show_and_what_was_left_out_is_skipped_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks = Check("a", "a", raises(Skipped("it is old"))), Check("b", "b", holds)
    assert outcomes(monkeypatch, *checks, without=("b",)) == [("skipped", "it is old"), ("skipped", "--without b")]


def test_notes_are_those_of_their_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def notes(trial: Trial) -> str:
        trial.notes.append("it is old")
        return ""

    monkeypatch.setattr(story, "STORY", (Check("a", "a", notes), Check("b", "b", holds)))
    done = list(story.run(cast(Trial, Nobody()), ()))
    assert [each.notes for each in done] == [("it is old",), ()]
    assert line(done[0]).splitlines()[1].strip() == "it is old"


def test_a_cluster_that_proves_unfit_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unfit):
        outcomes(monkeypatch, Check("a", "a", raises(Unfit("no image"))), Check("b", "b", holds))


def test_only_checks_that_others_do_not_need_may_be_left_out() -> None:
    keys = [each.key for each in story.STORY]
    assert len(set(keys)) == len(keys)
    assert unknown_keys(["policies", "second-pod", "hub-ready", "nothing"]) == ["hub-ready", "nothing"]


def test_lines_are_read_in_columns() -> None:
    done = [
        Outcome("the pod starts", "ok", 12.34, "2 restarts"),
        Outcome("it decides", "FAILED", 1.0, "waited"),
        Outcome("it is refused", "skipped", 0.0, "old"),
        Outcome("the rest", "not reached", 0.0, ""),
    ]
    said: list[Any] = [line(each) for each in done]
    assert said[0] == "ok             12.3 s  the pod starts: 2 restarts"
    assert len({text.index(each.name) for text, each in zip(said, done, strict=True)}) == 1
    assert said[3].endswith("the rest")
    assert total(done) == "1 held, 1 failed, 1 skipped, 1 not reached"
    assert total(done[:1]) == "1 held, 0 failed, 0 skipped"


def test_kubectls_last_words_are_no_warning() -> None:
    said = "Warning: policy/v1beta1 is deprecated\nError from server (NotFound): pods\n   not found\nWarning: old\n"
    assert Done(1, "", said).reason == "not found"
    assert Done(1, "out\n", "").reason == "out"
    assert Done(1, "", "error: no memory\ncommand terminated with exit code 2\n").reason == "error: no memory"
    assert Done(1, "", "command terminated with exit code 2\n").reason == "command terminated with exit code 2"
    assert Done(124, "", "").reason == "kubectl ended with 124"
