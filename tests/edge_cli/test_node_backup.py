"""`edge-agent node backup|restore` as people type it, and the page that tells them.

Held: edge_agent/MEMORY.md, Backup and restore.
"""

import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from backports import zstd

from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import Journal
from edge_agent.memory.lock import lock_data

ROOT = Path(__file__).parents[2]
NOW_US = 1_800_000_000_000_000

Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A site that ran, and one folder of another."""
    for name in ("plant-01", "plant-02"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"site": name, "data": name}))
    journal = Journal(tmp_path / "plant-01" / "memory.db", 64, lambda: NOW_US)
    journal.write([Draft("decision", "event", "site", NOW_US, "{}", label="started")])
    journal.close()
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    """Types a line; `given` is on its standard input."""

    def typed(*words: str, code: int = 0, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "edge_cli.main", "node", *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False, input=given)
        assert done.returncode == code, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        if code:
            assert done.stderr.count(b"\n") == 1, "one readable line"
        return done

    return typed


def test_a_backup_is_made_looked_at_and_restored(run: Run, folder: Path) -> None:
    made = run("backup", "plant-01.yaml", "--out", "b.tar.zst")
    assert b"no key or password of it" in made.stderr
    assert (folder / "b.tar.zst").stat().st_mode & 0o777 == 0o600
    said = run("backup", "--list", "b.tar.zst").stdout.decode()
    assert said.startswith("Backup of site plant-01: all that it remembers, and no key or password of it.\n")
    assert re.search(r"^ +\d+ memory\.db$", said, re.MULTILINE)
    assert re.search(r"not in it prepared: ", said)
    assert b"say --force" in run("restore", "b.tar.zst", "plant-01.yaml", code=2).stderr
    assert b"start it" in run("restore", "b.tar.zst", "plant-01.yaml", "--force").stderr
    assert len(list((folder / "plant-01").glob("memory.replaced-*.db"))) == 1
    tail = [sys.executable, "-m", "edge_cli.main", "memory", "tail", "-m", "plant-01.yaml", "--json"]
    told = subprocess.run(tail, cwd=folder, capture_output=True, check=True).stdout
    assert b'"restored"' in told


def test_who_scripts_it_gets_json(run: Run, folder: Path) -> None:
    made = json.loads(run("backup", "plant-01.yaml", "--out", "b", "--with-identity", "--no-models", "--json").stdout)
    assert (made["site"], made["holds_key"], made["records"], made["out"]) == ("plant-01", True, 1, "b")
    assert "blobs" in made["left_out"]
    listed = json.loads(run("backup", "--list", "b", "--json").stdout)
    assert {"memory.db", "site.yaml"} <= set(listed["file_sizes"])
    done = json.loads(run("restore", "b", "plant-01.yaml", "--data", "elsewhere", "--json").stdout)
    assert (done["set_aside"], done["kept"], done["unknown"], len(done["new_epoch"])) == (None, [], 0, 16)
    assert (folder / "elsewhere" / "memory.db").exists()


def test_through_standard_output_and_input_as_in_a_pod(run: Run, folder: Path) -> None:
    made = run("backup", "plant-01.yaml", "--out", "-")
    (folder / "b").write_bytes(made.stdout)
    run("backup", "--list", "b")
    run("restore", "-", "plant-01.yaml", "--data", "elsewhere", given=made.stdout)
    torn = run("restore", "-", "plant-01.yaml", "--data", "torn", given=made.stdout[:-9], code=3)
    assert b"backup on standard input: no backup of a site, or not a whole one" in torn.stderr
    assert not (folder / "torn").exists()
    assert sorted(each.name for each in folder.iterdir() if each.is_dir()) == ["elsewhere", "plant-01"]


def test_any_tar_gives_back_the_site_file(run: Run, folder: Path) -> None:
    run("backup", "plant-01.yaml", "--out", "b", "--with-identity")
    said = run("restore", "b", "gone.yaml", code=2).stderr.decode()
    assert "tar --zstd -xOf b site.yaml" in said
    (folder / "b.tar").write_bytes(zstd.decompress((folder / "b").read_bytes()))
    with tarfile.open(folder / "b.tar") as plain:
        file = plain.extractfile("site.yaml")
        assert file is not None
        assert file.read() == (folder / "plant-01.yaml").read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("backup", "plant-01.yaml"), 2, "where to?"),
        (("backup", "--out", "b"), 2, "a backup of what"),
        (("backup", "plant-01.yaml", "--list", "b"), 2, "--list makes no backup"),
        (("backup", "plant-01.yaml", "--out", "-", "--json"), 2, "standard output is the backup already"),
        (("backup", "plant-02.yaml", "--out", "b"), 2, "this site never ran"),
        (("backup", "plant-01.yaml", "--out", "plant-01/b"), 2, "belongs on another disk"),
        (("backup", "--list", "nowhere"), 2, "No such file"),
        (("backup", "--list", "plant-01.yaml"), 3, "not a whole one"),
        (("restore", "good", "plant-02.yaml"), 3, "it is of site 'plant-01', and this is 'plant-02'"),
        (("restore", "plant-01.yaml", "plant-02.yaml"), 3, "backup plant-01.yaml: no backup of a site, or"),
        (("restore", "good", "gone.yaml"), 2, "no such site file"),
        (("restore", "plant-01.yaml", "good"), 2, "comes second: edge-agent node restore good plant-01.yaml"),
        (("restore", "good", "good"), 2, "good is a backup, or packed like one: the site file comes second"),
    ],
)
def test_what_is_wrong_is_one_line(run: Run, folder: Path, words: tuple[str, ...], code: int, why: str) -> None:
    run("backup", "plant-01.yaml", "--out", "good")
    assert why in " ".join(run(*words, code=code).stderr.decode().split())
    assert sorted(each.name for each in folder.iterdir()) == ["good", "plant-01", "plant-01.yaml", "plant-02.yaml"]


def test_a_site_that_runs_is_backed_up_and_not_restored(run: Run, folder: Path) -> None:
    lock = lock_data(folder / "plant-01")
    run("backup", "plant-01.yaml", "--out", "b")
    said = run("restore", "b", "plant-01.yaml", "--force", code=2).stderr
    assert b"another process runs this site; stop it first" in said
    with open(lock, "rb"):  # closes it
        pass


def test_the_pod_of_the_page_has_the_sites_volume_and_no_more_rights_than_it() -> None:
    """docs/operations.md, Restore a site: beside the manifest of the site itself."""
    page = (ROOT / "docs" / "operations.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    pod: dict[str, Any] = yaml.safe_load(text)
    site = yaml.safe_load((ROOT / "k3s" / "manifests" / "site" / "deployment.yaml").read_text())["spec"]["template"]
    ours, theirs = pod["spec"], site["spec"]
    (restore,), (runs,) = ours["containers"], theirs["containers"]
    for name in ("runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "seccompProfile"):
        assert ours["securityContext"][name] == theirs["securityContext"][name]
    assert restore["securityContext"] == runs["securityContext"]
    assert ours["automountServiceAccountToken"] is theirs["automountServiceAccountToken"] is False
    mounts = {each["name"]: each for each in runs["volumeMounts"]}
    assert all(each == mounts[each["name"]] for each in restore["volumeMounts"])
    assert {"data", "config"} == {each["name"] for each in restore["volumeMounts"]}
    claims = [each.get("persistentVolumeClaim") for each in (*ours["volumes"], *theirs["volumes"])]
    assert [claim for claim in claims if claim] == [{"claimName": "site-data"}] * 2
    assert restore["command"][:4] == ["edge-agent", "node", "restore", "-"]
    assert restore["command"][4] == runs["command"][2]
    assert restore["stdin"] is restore["stdinOnce"] is True
    assert pod["metadata"]["namespace"] == "edge-agent"
