"""Bad input gets one clear line and an exit code, never a traceback."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edge_models.shipped import shipped_path

TRACE = shipped_path("trace", "2")
SCHEMA_1 = Path(__file__).parents[1] / "edge_agent" / "memory" / "schema_1.sql"


def edge_agent(*words: str | Path) -> tuple[int, str]:
    """The exit code, and the one line on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "edge_cli.main", *map(str, words)], capture_output=True, text=True, check=False
    )
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return done.returncode, lines[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("site: plant-01\nlables: {}\n", "site.yaml: unknown key 'lables' (did you mean 'labels'?)"),
        ("site: Plant 01\n", "site.yaml: site: site id 'Plant 01': use 1 to 63 of a-z, 0-9 and -"),
        ("site: hub\n", "'hub' is reserved"),
        ("site: a\nsite: b\n", "site.yaml: line 2: key 'site' stands twice"),
        ("site: a\ngrants: alert\n", "site.yaml: grants: Input should be a valid list (came 'alert')"),
        ("- a list\n", "site.yaml: wanted keys and values, found list"),
        ("site: a\nhub: {broker: 'mqtts://h'}\n", "key 'hub.root' is missing"),
        ("site: a\nhub: {broker: 'mqtts://h', director_key: '0'}\n", "unknown key 'hub.director_key' (known keys:"),
        ("site: a\nagents: [{name: w, bundel: x}]\n", "unknown key 'agents.0.bundel' (did you mean 'bundle'?)"),
        ("site: [\n", "site.yaml: line"),
    ],
)
@pytest.mark.parametrize("command", ["run", "doctor"])
def test_a_site_file_that_is_wrong(command: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(text)
    code, line = edge_agent(command, tmp_path / "site.yaml")
    assert code == 2
    assert said in line


def test_a_site_file_that_is_not_there(tmp_path: Path) -> None:
    code, line = edge_agent("run", tmp_path / "site.yaml")
    assert (code, "No such file" in line) == (2, True)


@pytest.mark.parametrize("words", [("tail",), ("explain", "0123456789abcdef:decision:1")])
@pytest.mark.parametrize("content", [b"", b"no database " * 100])
def test_a_memory_that_is_none(words: tuple[str, ...], content: bytes, tmp_path: Path) -> None:
    (tmp_path / "memory.db").write_bytes(content)
    code, line = edge_agent("memory", *words, "-m", tmp_path / "memory.db")
    assert (code, "can't be read as a site's memory" in line) == (2, True)


@pytest.mark.parametrize("words", [("tail",), ("verify",), ("explain", "0123456789abcdef:decision:1")])
def test_a_copied_memory_of_an_older_schema(words: tuple[str, ...], tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "memory.db")) as connection:
        connection.executescript(SCHEMA_1.read_text())
        connection.execute("PRAGMA user_version=1")
    code, line = edge_agent("memory", *words, "-m", tmp_path / "memory.db")
    assert (code, "start its site with this edge-agent once" in line) == (2, True)


def site_with(tmp_path: Path, policy: str, **agent: str) -> Path:
    shutil.copy(TRACE, tmp_path / "trace.bundle")
    (tmp_path / "policy.yaml").write_text(policy)
    keys = {"source": "{kind: replay, file: trace.bundle}", "grants": "[alert]"} | agent
    lines = "".join(f"    {key}: {value}\n" for key, value in keys.items())
    file = tmp_path / "site.yaml"
    file.write_text(
        "site: plant-01\ngrants: [alert]\napi: {port: 0}\nagents:\n"
        f"  - name: watch\n    bundle: trace.bundle\n    policy: policy.yaml\n{lines}"
    )
    return file


GOOD = "policy: p\nversion: 1\nrules:\n  - {name: a, when: 'true'}\n"


def test_a_policy_that_does_not_type_check_names_rule_and_column(tmp_path: Path) -> None:
    wrong = 'policy: p\nversion: 1\nrules:\n  - {name: stop, when: predicton.label == "drop"}\n'
    code, line = edge_agent("run", site_with(tmp_path, wrong))
    assert code == 2
    assert "rule 'stop'" in line
    assert "column 1" in line
    assert "did you mean 'prediction.label'?" in line


def test_a_policy_that_uses_a_tool_the_agent_is_not_granted(tmp_path: Path) -> None:
    acts = (
        "policy: p\nversion: 1\nrules:\n  - {name: a, when: 'true', do: {tool: fact.set, with: {key: k, value: 1}}}\n"
    )
    code, line = edge_agent("run", site_with(tmp_path, acts))
    assert code == 2
    assert "'fact.set', which its grants do not name" in line


def test_a_bundle_with_a_flipped_bit(tmp_path: Path) -> None:
    data = bytearray(TRACE.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "x.bundle").write_bytes(data)
    np.save(tmp_path / "in.npy", np.zeros((1, 275), np.float32))
    code, line = edge_agent("infer", tmp_path / "x.bundle", tmp_path / "in.npy")
    assert code == 3
    assert "sha256" in line


@pytest.mark.parametrize(
    ("array", "came"),
    [
        (np.zeros((3, 12), np.float32), "came (3, 12) float32, wanted (batch, 275) float32"),
        (np.zeros((1, 275), np.complex64), "complex64"),
    ],
)
def test_an_input_of_the_wrong_shape_or_dtype(
    array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]", came: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "in.npy", array)
    code, line = edge_agent("infer", TRACE, tmp_path / "in.npy")
    assert code == 3
    assert came in line
    assert "window" in line


def test_a_source_that_does_not_exist(tmp_path: Path) -> None:
    code, line = edge_agent("run", site_with(tmp_path, GOOD, source="{kind: mqt}"))
    assert code == 2
    assert "mqtt" in line


def test_a_record_id_that_is_none(tmp_path: Path) -> None:
    code, line = edge_agent("memory", "explain", "42", "-m", tmp_path / "memory.db")
    assert code == 2
    assert "one looks like" in line


def test_a_memory_that_is_not_there(tmp_path: Path) -> None:
    code, line = edge_agent("memory", "tail", "-m", tmp_path / "memory.db")
    assert code == 2
    assert "no such memory" in line


def test_a_hub_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    code, line = edge_agent("fleet", "ls", "--hub", "http://127.0.0.1:1", "--token-file", tmp_path / "token")
    assert code == 4
    assert "does not answer" in line
