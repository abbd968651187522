"""A release on trial: what makes a site go back, what makes it stay, and that one of the two always comes."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.update.trial import (
    Baseline,
    Confirm,
    Effect,
    GoBack,
    Health,
    Keep,
    Stay,
    Trial,
    TrialRow,
    TrialSettings,
)

BEFORE = Baseline(1000, 0.02, {"press": 0.040, "saw": 0.001}, {"oven": 9})


def test_the_defaults_are_what_is_documented() -> None:
    assert asdict(TrialSettings()) == {
        "window_s": 600.0,
        "min_steps": 20,
        "max_boots": 3,
        "max_restarts": 3,
        "max_error_ratio": 3.0,
        "min_error_rate": 0.05,
        "min_errors": 5,
        "max_latency_ratio": 2.0,
        "min_latency_s": 0.05,
        "keep_s": 30.0,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"window_s": 0},
        {"window_s": float("nan")},
        {"keep_s": 0},
        {"min_steps": 0},
        {"max_boots": -1},
        {"min_error_rate": -0.1},
        {"max_error_ratio": 0.9},
        {"max_latency_ratio": float("nan")},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"trial needs|may not have to be"):
        TrialSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("health", "reason"),
    [
        # crashes: no step is needed, and each agent counts for itself
        (Health(restarts={"press": 4}, errors=4), "agent 'press' crashed 4 times"),
        (Health(restarts={"press": 3, "saw": 3}, errors=6), None),
        (Health(restarts={"oven": 9}, errors=9), None),
        (Health(restarts={"oven": 10}, errors=10), "agent 'oven' crashed 10 times"),
        # errors: three times those before, at least one in twenty, at least five, of twenty steps at least
        (Health(steps=1000, errors=60), None),
        (Health(steps=1000, errors=61), "61 errors in 1000 steps"),
        (Health(steps=19, errors=19), None),
        (Health(steps=20, errors=4), None),
        (Health(steps=20, errors=5), "5 errors in 20 steps"),
        # latency: of the same agent, twice as much, and more than 50 ms
        (Health(steps=20, latency_p95_s={"press": 0.080}), None),
        (Health(steps=20, latency_p95_s={"press": 0.0801}), "agent 'press' needs 80.1 ms"),
        (Health(steps=19, latency_p95_s={"press": 9.0}), None),
        (Health(steps=20, latency_p95_s={"saw": 0.050}), None),
        (Health(steps=20, latency_p95_s={"saw": 0.0501}), "agent 'saw' needs 50.1 ms"),
        (Health(steps=20, latency_p95_s={"new": 9.0}), None),
        (Health(steps=1000, errors=9, latency_p95_s={"press": 0.041, "saw": 0.0011}), None),
    ],
)
def test_what_disappoints(health: Health, reason: str | None) -> None:
    effect = Trial(BEFORE, can_go_back=True, now_s=0.0).sample(health, 5.0)
    stays = Trial(BEFORE, can_go_back=False, now_s=0.0).sample(health, 5.0)
    if reason is None:
        assert effect is stays is None
    else:
        assert isinstance(effect, GoBack)
        assert effect.reason.startswith(reason)
        assert stays == Stay(effect.reason), "there is nothing to go back to, and it says why it would"


@pytest.mark.parametrize(
    ("baseline", "errors", "back"),
    [
        (Baseline(), 6, True),
        (Baseline(), 5, False),
        (Baseline(1, 1.0), 15, False),  # one error in one step: as if 19 clean ones came with it
        (Baseline(1, 1.0), 16, True),
        (Baseline(20, 1.0), 100, False),  # nothing worked before either
    ],
)
def test_little_known_of_the_release_before_excuses_little(baseline: Baseline, errors: int, back: bool) -> None:
    effect = Trial(baseline, can_go_back=True, now_s=0.0).sample(Health(steps=100, errors=errors), 1.0)
    assert isinstance(effect, GoBack) is back


def test_at_the_end_of_the_window_it_stays_and_says_whether_it_had_anything_to_do() -> None:
    busy, quiet = (Trial(BEFORE, can_go_back=True, now_s=100.0) for _ in range(2))
    for trial in (busy, quiet):
        assert isinstance(trial.sample(Health(), 699.9), Keep)
    assert busy.sample(Health(steps=20), 700.0) == Confirm(20, quiet=False)
    assert quiet.sample(Health(steps=19), 700.0) == Confirm(19, quiet=True)


def test_what_is_wrong_at_the_last_moment_counts() -> None:
    trial = Trial(BEFORE, can_go_back=True, now_s=0.0)
    assert isinstance(trial.sample(Health(restarts={"press": 4}), 10_000.0), GoBack)


def test_the_fourth_start_on_trial_goes_back() -> None:
    for boots, effect in enumerate([None, None, None, GoBack("the site started 4 times before it was confirmed")], 1):
        trial = Trial.from_row(TrialRow(), can_go_back=True, now_s=0.0)
        assert trial.booted(boots, 1.0) == effect
    assert isinstance(Trial(BEFORE, can_go_back=False, now_s=0.0).booted(4, 1.0), Stay)


def test_after_a_verdict_there_is_none_any_more() -> None:
    trial = Trial(BEFORE, can_go_back=True, now_s=0.0)
    assert isinstance(trial.sample(Health(restarts={"press": 4}), 1.0), GoBack)
    assert trial.over
    assert trial.sample(Health(restarts={"press": 5}), 2.0) is None
    assert trial.sample(Health(), 10_000.0) is None
    assert trial.booted(9, 10_001.0) is None


def test_a_trial_goes_on_after_a_restart_with_what_it_had_left_and_had_counted() -> None:
    first = Trial(BEFORE, can_go_back=True, now_s=1_000_000.0)
    seen = Health(steps=600, errors=30, restarts={"press": 2}, latency_p95_s={"press": 0.05})
    kept = first.sample(seen, 1_000_400.0)
    assert isinstance(kept, Keep)
    assert kept.row == first.to_row()
    assert kept.row.left_s == 200.0

    def again() -> Trial:
        trial = Trial.from_row(kept.row, can_go_back=True, now_s=3.0)  # the machine's clock began anew
        assert trial.to_row() == kept.row
        assert trial.booted(1, 4.0) is None
        return trial

    assert isinstance(again().sample(Health(steps=400, errors=31), 5.0), GoBack), "61 errors of 1000, both counted"
    assert again().sample(Health(steps=400, errors=30), 5.0) is None
    assert isinstance(again().sample(Health(restarts={"press": 2}), 5.0), GoBack)
    assert again().sample(Health(restarts={"saw": 2}), 5.0) is None
    assert isinstance(again().sample(Health(steps=9, latency_p95_s={"press": 0.081}), 5.0), GoBack)
    trial = again()
    assert isinstance(trial.sample(Health(), 203.9), Keep)
    assert trial.sample(Health(), 204.0) == Confirm(600, quiet=False)


def test_the_row_is_to_be_written_now_and_then() -> None:
    trial = Trial(BEFORE, can_go_back=True, now_s=0.0)
    kept = [now for now in range(5, 600, 5) if isinstance(trial.sample(Health(), float(now)), Keep)]
    assert kept == list(range(30, 600, 30))
    assert len(trial.to_row().seen or "") < 500


def test_a_clock_that_stands_still_or_goes_back_takes_nothing_off() -> None:
    trial = Trial(BEFORE, can_go_back=True, now_s=500.0)
    assert trial.sample(Health(), 100.0) is None
    assert trial.to_row().left_s == 600.0
    assert trial.sample(Health(), 700.0) == Confirm(0, quiet=True)


GOOD = Trial(BEFORE, can_go_back=True, now_s=0.0).to_row()


@pytest.mark.parametrize(
    "row",
    [
        TrialRow(),
        replace(GOOD, left_s=float("nan")),
        replace(GOOD, left_s=-1.0),
        replace(GOOD, left_s=1e9),
        *(TrialRow(600.0, seen) for seen in ("", "{", "[]", "null", "7", "{}", '{"baseline": {}, "counted": 3}')),
        TrialRow(600.0, json.dumps(json.loads(GOOD.seen or "") | {"counted": {"steps": "many"}})),
        TrialRow(600.0, (GOOD.seen or "").replace("1000", "1e999")),
        TrialRow(600.0, (GOOD.seen or "").replace("0.02", "NaN")),
        TrialRow(600.0, (GOOD.seen or "").replace('{"oven":9}', "9")),
    ],
)
def test_a_row_that_was_damaged_is_a_trial_from_its_beginning(row: TrialRow) -> None:
    trial = Trial.from_row(row, can_go_back=True, now_s=0.0)
    assert trial.to_row() == (GOOD if row.seen == GOOD.seen else Trial(Baseline(), True, 0.0).to_row())
    assert isinstance(trial.sample(Health(), 600.0), Confirm)


def test_a_window_that_was_made_shorter_ends_sooner() -> None:
    row = replace(GOOD, left_s=500.0)
    trial = Trial.from_row(row, can_go_back=True, now_s=0.0, settings=TrialSettings(window_s=60.0))
    assert isinstance(trial.sample(Health(), 60.0), Confirm)


names = st.sampled_from(["press", "saw"])
p95s = st.dictionaries(names, st.floats(0, 10))
crashes = st.dictionaries(names, st.integers(0, 6))
baselines = st.builds(Baseline, st.integers(0, 5000), st.floats(0, 3), p95s, crashes)
healths = st.builds(Health, st.integers(0, 500), st.integers(0, 100), crashes, p95s)
events = st.lists(
    st.one_of(
        st.tuples(st.just("sample"), healths, st.floats(0, 300)),
        st.tuples(st.just("boot"), healths, st.floats(0, 300)),  # another process, which counts from zero
    ),
    max_size=30,
)


@given(baselines, events, st.booleans())
def test_one_verdict_at_the_end_of_the_window_at_the_latest(
    baseline: Baseline, events: list[tuple[str, Health, float]], can_go_back: bool
) -> None:
    """Whatever happens, in however many processes: one verdict, none after it, no way back where there is none."""
    settings = TrialSettings()
    now_s, lived_s, boots = 50.0, 0.0, 0
    trial = Trial(baseline, can_go_back, now_s, settings)
    verdicts: list[Effect] = []
    for kind, health, step_s in [*events, ("sample", Health(), settings.window_s + 1)]:
        if kind == "boot" and not trial.over:
            boots += 1
            now_s = step_s
            trial = Trial.from_row(trial.to_row(), can_go_back, now_s, settings)
            effect = trial.booted(boots, now_s)
        else:
            now_s += step_s
            lived_s += step_s
            effect = trial.sample(health, now_s)
        if effect is not None and not isinstance(effect, Keep):
            verdicts.append(effect)
        assert len(verdicts) == trial.over
        assert trial.over or lived_s < settings.window_s + 1e-6
    assert len(verdicts) == 1
    assert not isinstance(verdicts[0], GoBack if not can_go_back else Stay)


@given(baselines, healths)
def test_more_of_what_is_wrong_never_makes_it_better(baseline: Baseline, health: Health) -> None:
    worse = replace(
        health,
        errors=health.errors + 1,
        restarts={agent: count + 1 for agent, count in health.restarts.items()},
        latency_p95_s={agent: p95 * 2 for agent, p95 in health.latency_p95_s.items()},
    )
    first, second = (Trial(baseline, can_go_back=True, now_s=0.0).sample(h, 1.0) for h in (health, worse))
    assert not isinstance(first, GoBack) or isinstance(second, GoBack)


@given(baselines, healths)
def test_a_release_that_does_as_well_as_the_one_before_never_goes_back(baseline: Baseline, health: Health) -> None:
    rate = health.errors / health.steps if health.steps else 0.0
    same = Baseline(max(health.steps, 20), rate, health.latency_p95_s, health.restarts)
    assert Trial(same, can_go_back=True, now_s=0.0).sample(health, 1.0) is None
