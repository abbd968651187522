"""`edge-agent image` as an operator types it: the answer on stdout, one line for what is wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command in a folder; whatever it ends with."""

    def command(*words: object, **known: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "edge_cli.main", "image", *map(str, words)],
            cwd=tmp_path, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            env={**os.environ, **known},
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done

    return command


def test_build_says_the_name_by_which_a_kit_asks_for_it(run: Run, root: Path, house: Path, tmp_path: Path) -> None:
    words = ("build", "--base", root, "--wheels", house, "--level", 1)
    done = run(*words, "--out", "image.tar", "--sbom", "bill.json", "--sizes", "--json", SOURCE_DATE_EPOCH="1700000000")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["reference"].startswith("edge-agent-kit:0.1.0-")
    assert {part["layer"] for part in said["parts"]} == {"base", "dependencies", "kit"}
    assert json.loads((tmp_path / "bill.json").read_bytes())["bomFormat"] == "CycloneDX"
    assert b"2023-11-14T22:13:20Z" in (tmp_path / "image.tar").read_bytes()
    plain = run(*words, "--out", "plain.tar")
    assert plain.stdout.splitlines()[-1].startswith("edge-agent-kit:0.1.0-")
    assert "sha256:" in plain.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--role", "desk"), 2, "--role 'desk': write one of site, hub, broker, proxy"),
        (("--platform", "windows"), 2, "--platform 'windows': write one of linux/amd64, linux/arm64"),
        (("--platform", "linux/arm64"), 2, "it is for amd64, and --platform says arm64"),
        (("--wheels", "nowhere"), 2, "there are no wheels"),
        (("--extra", "nonsense"), 2, "knows hub, postgres, text"),
        (("--base", "nowhere.tar"), 2, "no tar that can be read"),
        (("--out", "nowhere/image.tar"), 2, "there is no folder nowhere"),
    ],
)
def test_a_wrong_order_is_one_line_and_no_image(
    run: Run, root: Path, house: Path, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = run("build", "--base", root, "--wheels", house, "--out", "image.tar", *words)
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("*image.tar*"))


def test_a_wrong_date_and_a_missing_program_are_said(run: Run, root: Path, house: Path, tmp_path: Path) -> None:
    words = ("build", "--wheels", house, "--out", "image.tar")
    done = run(*words, "--base", root, SOURCE_DATE_EPOCH="yesterday")
    assert (done.returncode, "SOURCE_DATE_EPOCH 'yesterday'" in done.stderr) == (2, True)
    done = run(*words, PATH=str(tmp_path))
    assert (done.returncode, "apt-get install mmdebstrap" in done.stderr) == (2, True)
    done = run("wheels", "--role", "broker", "--base", root, "--out", "w")
    assert (done.returncode, "holds no Python" in done.stderr) == (2, True)
