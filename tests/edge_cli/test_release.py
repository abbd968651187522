"""`edge-agent release create`: what is wrong with a release is said in one line, before anything is written."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_cli.release import make_release, read_release, write_release
from edge_models.bundle import Golden, write_bundle
from edge_models.contract import Contract
from edge_models.errors import ConfigError, KitError, RejectedError
from edge_models.tensors import TensorSpec

POLICY = """\
policy: press-guard
version: 1
abstain_below: 0.5
rules:
  - name: stop
    when: prediction.label == "anomaly"
    do: {tool: mqtt.publish, with: {topic: line/stop, payload: {why: =prediction.label}}}
"""

RELEASE = """\
release: 2
agents:
  - name: press-guard
    bundle: press.bundle
    policy: press.yaml
    source: {kind: mqtt, endpoint: sensors, topic: local/press}
    grants: [mqtt.publish]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good release file with a good bundle and policy beside it."""
    contract = Contract(
        name="press",
        version="1",
        task="classification",
        inputs=(TensorSpec("values", ("batch", 3), "float32"),),
        outputs=(TensorSpec("probabilities", ("batch", 2), "float32"),),
        labels=("normal", "anomaly"),
        scores="probabilities",
        golden_atol=0.03,
    )
    golden = Golden(
        inputs={"values": np.zeros((1, 3), np.float32)},
        outputs={"probabilities": np.full((1, 2), 0.5, np.float32)},
        truth=("normal",),
    )
    write_bundle(tmp_path / "press.bundle", contract=contract, graph=b"graph", golden=golden, card={})
    (tmp_path / "press.yaml").write_text(POLICY)
    (tmp_path / "release.yaml").write_text(RELEASE)
    return tmp_path / "release.yaml"


def test_a_release_folder_reads_back_as_it_was_made(file: Path, tmp_path: Path) -> None:
    release, blobs = make_release(file)
    write_release(release, blobs, tmp_path / "out")
    assert read_release(tmp_path / "out") == release
    names = {path.name for path in (tmp_path / "out" / "blobs" / "sha256").iterdir()}
    assert names == {digest.removeprefix("sha256:") for digest in blobs} == {d[7:] for d in release.artifacts}


def _replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def _flip(folder: Path) -> None:
    data = bytearray((folder / "press.bundle").read_bytes())
    data[-3000] ^= 1
    (folder / "press.bundle").write_bytes(data)


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (_replace("release.yaml", "release: 2", "release: 0"), ConfigError, "release: Input should be greater"),
        (_replace("release.yaml", "grants:", "grant:"), ConfigError, "did you mean 'grants'"),
        (_replace("release.yaml", "press.bundle", "absent.bundle"), ConfigError, "absent.bundle"),
        (_replace("press.yaml", "prediction.label ==", "predicton.label =="), ConfigError, "press.yaml:6"),
        (_replace("press.yaml", '"anomaly"', '"anomly"'), ConfigError, "label 'anomly'; press.bundle knows normal"),
        (_replace("release.yaml", "[mqtt.publish]", "[]"), ConfigError, "calls mqtt.publish: add it"),
        (
            _replace("release.yaml", "    grants", "    inputs: {value: x}\n    grants"),
            ConfigError,
            "`inputs` names 'value'; press.bundle takes values",
        ),
        (_flip, RejectedError, "agent 'press-guard': press.bundle"),
    ],
)
def test_what_is_wrong_is_named(file: Path, change: Callable[[Path], None], kind: type[KitError], says: str) -> None:
    change(file.parent)
    with pytest.raises(kind) as caught:
        make_release(file)
    assert says in str(caught.value)


def test_a_folder_that_is_no_release(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is .* a release folder"):
        read_release(tmp_path / "nothing")
    release, blobs = make_release(file)
    write_release(release, blobs, tmp_path / "out")
    document = tmp_path / "out" / "release.json"
    document.write_text(json.dumps({"release": "x"}))
    with pytest.raises(RejectedError, match=r"release\.json: release"):
        read_release(tmp_path / "out")
