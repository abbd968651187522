"""`edge-agent demo`: the main job as a user runs it, over both brokers; and what is left when it is interrupted."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

DEMO = [sys.executable, "-m", "edge_cli.main", "demo"]
SITES = ("plant-01", "plant-02", "store-01")
COLUMNS = "epoch, lane, seq, at, kind, agent, subject, label, score, ref, body, hash"


def rows(path: Path, table: str, where: str = "") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return db.execute(f"SELECT {COLUMNS} FROM {table} {where} ORDER BY epoch, lane, seq").fetchall()


def test_the_demo_ends_with_balanced_books_and_release_2_everywhere(broker_kind: str, tmp_path: Path) -> None:
    keep = tmp_path / "out"
    done = subprocess.run(
        [*DEMO, "--json", "--keep", str(keep), "--broker", broker_kind], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["ok"] is True
    assert summary["broker"] == broker_kind
    assert summary["releases"] == [1, 2]
    assert set(summary["sites"]) == set(SITES)
    for site, said in summary["sites"].items():
        ours = rows(keep / "sites" / site / "memory.db", "journal")
        theirs = rows(keep / "hub" / "hub.db", "records", f"WHERE site='{site}'")
        assert ours == theirs
        assert len(ours) == said["records_at_site"] == said["records_at_hub"] > 100
        assert said["release"] == 2
        assert (said["lost"], said["duplicated"]) == (0, 0)
        assert said["observations"] == said["decisions"] > 20
        assert said["actions"] > 0
        releases = {json.loads(row[10])["release"] for row in ours if row[4] == "decision"}
        assert releases == {1, 2}
    assert summary["sites"]["plant-01"]["decisions_while_cut"] > 50
    assert summary["requests_during_swap"]["failed"] == 0
    assert summary["requests_during_swap"]["sent"] > 20
    assert {path.stem for path in (keep / "logs").glob("*.log")} == {"hub", "feeder", *SITES}
    for log in (keep / "logs").glob("*.log"):
        assert "Traceback" not in log.read_text()
    assert left_running(keep) == []


@pytest.mark.parametrize("moment", ["hub/broker/broker.json", "sites/plant-01", "sites/plant-01/api.port", "release-2"])
def test_ctrl_c_at_any_moment_leaves_nothing_running(moment: str, until: Callable[..., Any], tmp_path: Path) -> None:
    keep = tmp_path / "out"
    with (tmp_path / "said").open("wb") as said:
        child = subprocess.Popen([*DEMO, "--keep", str(keep)], stdout=said, stderr=said, stdin=subprocess.DEVNULL)
    until(lambda: (keep / moment).exists() or child.poll() is not None, moment, 60)
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == 130
    assert "Traceback" not in (tmp_path / "said").read_text()
    assert left_running(keep) == []


def test_a_killed_demo_takes_its_children_with_it(until: Callable[..., Any], tmp_path: Path) -> None:
    keep = tmp_path / "out"
    child = subprocess.Popen(
        [*DEMO, "--keep", str(keep)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    until(lambda: (keep / "sites" / "store-01" / "api.port").exists() or child.poll() is not None, "sites", 60)
    child.kill()
    child.wait(10)
    until(lambda: left_running(keep) == [], "the children to end", 10)


def test_a_folder_with_something_in_it_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    done = subprocess.run([*DEMO, "--keep", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def left_running(folder: Path) -> list[str]:
    """Processes whose command line names something in this folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(folder) in line and "--keep" not in line:
                found.append(line)
    return found
