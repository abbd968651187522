"""Promises 1 to 3 under every fault at once, and the proof that breaking them would be noticed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_sim.breaks import BREAKS
from edge_sim.run import run

ROOT = Path(__file__).parents[2]
SIM = Path(__file__).parent


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
@pytest.mark.parametrize("name", BREAKS)
def test_a_planted_mistake_is_found_within_200_seeds(name: str) -> None:
    done = simulate("--break", name, "--seeds", "200", "--no-shrink")
    assert done.returncode == 1, f"{name} was not noticed: {done.stdout}{done.stderr}"
    assert "timeline:" in done.stdout


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
