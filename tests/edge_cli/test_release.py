"""`edge-agent release create`: what is wrong with a release is said in one line, before anything is written."""

import json
import sys
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
        (
            _replace("release.yaml", "endpoint: sensors, ", ""),
            ConfigError,
            "agent 'press-guard': source mqtt: key 'endpoint' is missing",
        ),
        (
            _replace("release.yaml", "endpoint: sensors, topic", "endpoint: sensors, qos: 2, topic"),
            ConfigError,
            "agent 'press-guard': source mqtt: qos",
        ),
        (
            _replace("release.yaml", "mqtt, endpoint: sensors, topic: local/press", "http, port: 1, host: 0.0.0.0"),
            ConfigError,
            "agent 'press-guard': source http: host '0.0.0.0' can be reached from elsewhere: set token_file",
        ),
    ],
)
def test_what_is_wrong_is_named(file: Path, change: Callable[[Path], None], kind: type[KitError], says: str) -> None:
    change(file.parent)
    with pytest.raises(kind) as caught:
        make_release(file)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mqtt, endpoint: sensors, topic: local/press", "http, port: 1, token_file: secrets/http.token"),
        ("mqtt, endpoint: sensors, topic: local/press", "replay, file: /only/at/the/site.jsonl"),
        ("mqtt, endpoint: sensors, topic: local/press", 'folder, path: in, pattern: "*", take: json, after: move'),
    ],
)
def test_what_only_the_site_has_is_not_asked_for(file: Path, old: str, new: str) -> None:
    """Its endpoints, its token, its recordings: the release is good without them, and nothing is made on this disk."""
    _replace("release.yaml", old, new)(file.parent)
    before, said = sorted(file.parent.rglob("*")), list[str]()
    make_release(file, said.append)
    assert (sorted(file.parent.rglob("*")), said) == (before, [])


def test_a_source_or_tool_that_is_not_installed_here_is_told_of(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may be a plugin of the operator's own, which is in the sites' image."""
    _replace("release.yaml", "mqtt, endpoint: sensors, topic: local/press", "htp, anything: 1")(file.parent)
    _replace("release.yaml", "[mqtt.publish]", "[mqtt.publish, alrt]")(file.parent)
    release, _ = make_release(file)
    assert release.agents[0].source.kind == "htp"
    source, tool = capsys.readouterr().err.splitlines()
    assert source.startswith("mind: agent 'press-guard': no source is named 'htp' (did you mean 'http'?")
    assert source.endswith("on this machine; it starts only at sites whose image brings that source")
    assert tool.startswith("mind: agent 'press-guard': no tool is named 'alrt' (did you mean 'alert'?")


PLUGIN = """\
from edge_models.errors import ConfigError


class Scale:
    def __init__(self, options, context):
        if "unit" not in options:
            raise ConfigError("scale: key 'unit' is missing")
        if options["unit"] == "t":
            raise LookupError("no driver")
        context.endpoint("scales")
        raise ConfigError("scale: what the site file says is another matter")

    start = take = done = dropped = exhausted = close = lambda self, *_: None
"""


def test_a_plugin_that_is_installed_here_is_asked_as_the_site_asks_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "site" / "shopscale-1.0.dist-info"
    metadata.mkdir(parents=True)
    (tmp_path / "site" / "shopscale.py").write_text(PLUGIN)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shopscale\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[edge_agent.sources]\nscale = shopscale:Scale\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "shopscale", raising=False)
    said = list[str]()
    _replace("release.yaml", "mqtt, endpoint: sensors, topic: local/press", "scale")(file.parent)
    with pytest.raises(ConfigError, match=r"^agent 'press-guard': scale: key 'unit' is missing$"):
        make_release(file, said.append)
    _replace("release.yaml", "kind: scale", "kind: scale, unit: kg")(file.parent)
    make_release(file, said.append)
    assert said == [], "a site file's endpoints are no release's"
    _replace("release.yaml", "unit: kg", "unit: t")(file.parent)
    make_release(file, said.append)
    assert said == ["agent 'press-guard': source scale could not be checked on this machine: LookupError: no driver"]


def test_a_folder_that_is_no_release(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is .* a release folder"):
        read_release(tmp_path / "nothing")
    release, blobs = make_release(file)
    write_release(release, blobs, tmp_path / "out")
    document = tmp_path / "out" / "release.json"
    document.write_text(json.dumps({"release": "x"}))
    with pytest.raises(RejectedError, match=r"release\.json: release"):
        read_release(tmp_path / "out")
