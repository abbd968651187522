"""Promises 1 to 4, 6 and 7 under every fault at once, and the proof that breaking them would be noticed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_sim.breaks import BREAKS
from edge_sim.faults import Fault, plan
from edge_sim.run import SPAN_S, run
from edge_sim.update_breaks import UPDATE_BREAKS

ROOT = Path(__file__).parents[2]
SIM = Path(__file__).parent

PLAIN = 3
"""A seed in which releases are pushed and nothing goes wrong."""


def simulate(*arguments: str, hash_seed: str = "random") -> subprocess.CompletedProcess[str]:
    """`./dev sim`, from the environment that runs the tests."""
    environment = os.environ | {"PYTHONPATH": str(SIM), "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, "-m", "edge_sim", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


RARE = {"resume-ignored", "chunks-forgotten"}
"""Mistakes that only few fleets trip over: a minute each."""


@pytest.mark.timeout(600)
def test_none_of_the_seeds_breaks_a_promise() -> None:
    done = simulate("--seeds", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 seeds" in done.stdout


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_none_of_2000_seeds_breaks_a_promise() -> None:
    done = simulate("--seeds", "2000", "--first", "60")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_fleet_of_12_sites_breaks_no_promise() -> None:
    done = simulate("--seeds", "40", "--sites", "12", "--first", "5000")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in RARE else name for name in BREAKS]
)
def test_a_planted_mistake_is_found_within_200_seeds(name: str) -> None:
    where = ["--only-updates"] if name in UPDATE_BREAKS else []
    done = simulate("--break", name, "--seeds", "200", "--no-shrink", *where)
    assert done.returncode == 1, f"{name} was not noticed: {done.stdout}{done.stderr}"
    assert "timeline:" in done.stdout


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_none_of_2000_seeds_breaks_a_promise_of_updates() -> None:
    done = simulate("--seeds", "2000", "--first", "10000", "--only-updates")
    assert done.returncode == 0, done.stdout + done.stderr


def test_where_nothing_goes_wrong_every_chunk_leaves_the_hub_once() -> None:
    assert {fault.kind for fault in plan(PLAIN, 3, SPAN_S)} == {"sign", "push"}
    outcome = run(PLAIN)
    assert not outcome.verdict.violations
    assert 4 <= outcome.counts["chunk sent"] < outcome.counts["want"]  # three sites asked for what was sent once


def test_what_an_attacker_says_is_refused_recorded_and_changes_nothing() -> None:
    attacks = ("forged desired", "old desired", "other's desired", "old trust")
    struck = [Fault(10, "sign", 0, 0.2), Fault(20, "push", 0, 0.21), Fault(200, "push", 0, 0.111)]
    struck += [Fault(280, "sign", 0, 0.2)]
    struck += [Fault(300 + 9 * number, kind, number % 3, 0.3) for number, kind in enumerate(attacks)]
    struck += [Fault(390, "forged chunks", 0, 0.9), Fault(400, "push", 0, 0.991)]
    outcome = run(PLAIN, faults=struck)
    assert not outcome.verdict.violations
    said = [line for line in outcome.timeline if " refused " in line]
    for reason in ("is not signed by the operator", "is older than", "is for site", "trust metadata", "chunk 0 of"):
        assert any(reason in line for line in said), reason


def test_a_release_that_disappoints_goes_and_one_whose_golden_check_fails_never_runs() -> None:
    signs = [Fault(6 + number, "sign", 0, 0.2) for number in range(4)]  # 1, 3, 4, 5 and 6 may run then
    pushes = [Fault(at_s, "push", 0, chance) for at_s, chance in ((20, 0.111), (220, 0.311), (440, 0.511))]
    outcome = run(PLAIN, faults=[*signs, *pushes])
    assert not outcome.verdict.violations
    runs = [line.split(" runs ")[1].split() for line in outcome.timeline if line.split()[1:3] == ["site-1", "runs"]]
    assert [words[1] for words in runs] == ["0", "1", "3", "1"]


def test_a_failing_seed_is_told_with_the_fewest_faults() -> None:
    done = simulate("--break", "high-without-rows", "--seed", "1")
    assert done.returncode == 1
    assert "faults that are enough for it (0 of" in done.stdout
    assert "again: ./dev sim --seed 1 --sites 3 --break high-without-rows" in done.stdout


def test_a_seed_replays_bit_for_bit() -> None:
    first, second = (simulate("--seed", "11", hash_seed=seed) for seed in ("1", "2"))
    assert first.returncode == 0
    digests = [done.stdout.splitlines()[-1] for done in (first, second)]
    assert digests[0] == digests[1]
    assert digests[0] == f"timeline sha256 {run(11).digest}"


def test_the_mistakes_are_listed_one_a_line() -> None:
    assert simulate("--list-breaks").stdout.split() == list(BREAKS)


def test_an_unknown_mistake_is_refused() -> None:
    done = simulate("--break", "nothing")
    assert done.returncode == 2
    assert "--list-breaks" in done.stderr
