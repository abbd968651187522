"""A release from the command line to a site: uploaded, signed, sent in chunks, verified. Held: sync/SPEC.md, Chunks."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from edge_models.bundle import Golden, write_bundle
from edge_models.contract import Contract
from edge_models.digests import digest_of
from edge_models.errors import RejectedError
from edge_models.tensors import TensorSpec
from edge_sync.chunks import Receiver
from edge_sync.documents import DESIRED_TYPE, Desired, EpochState, Hello, Reported, dump, load
from edge_sync.release import CHUNK_SIZE_BYTES, Release
from edge_sync.signing import verify

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

GRAPH_BYTES = 3 * CHUNK_SIZE_BYTES + 777


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A release as an operator writes it."""
    folder = tmp_path / "written"
    folder.mkdir()
    rng = np.random.default_rng(7)
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
        inputs={"values": rng.random((2, 3), dtype=np.float32)},
        outputs={"probabilities": rng.random((2, 2), dtype=np.float32)},
        truth=("normal", "anomaly"),
    )
    graph = rng.bytes(GRAPH_BYTES)
    write_bundle(folder / "press.bundle", contract=contract, graph=graph, golden=golden, card={})
    (folder / "press.yaml").write_text(POLICY)
    (folder / "release.yaml").write_text(RELEASE)
    return folder


def command(*arguments: object) -> tuple[int, str, str]:
    """What `edge-agent` answers: exit code, stdout, stderr."""
    words = [sys.executable, "-m", "edge_cli.main", *(str(each) for each in arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def answer(*arguments: object) -> Any:
    """The JSON answer of a command that succeeds."""
    code, out, err = command(*arguments, "--json")
    assert code == 0, err
    return orjson.loads(out)


@pytest.fixture
def made(hub: Any, written: Path, tmp_path: Path) -> Path:
    """The release, signed, as a folder that can be pushed."""
    done = create(hub, written, tmp_path / "made")
    assert (done["release"], done["agents"], len(done["artifacts"])) == (2, ["press-guard"], 2)
    return tmp_path / "made"


def create(hub: Any, written: Path, out: Path) -> Any:
    """What the operator answers who makes and signs the release that is written."""
    return answer("release", "create", written / "release.yaml", "--trust", hub.operator.folder, "--out", out)


def wished(site: Any, hub: Any) -> Desired:
    """The next desired document, its signature verified."""
    return load(Desired, verify(site.told("desired"), DESIRED_TYPE, hub.facts["director_key"]))


def fetch(site: Any, release: Release, until: Any) -> dict[str, bytes]:
    """Ask for every chunk of a release as a site does, again where one is lost; returns the artifacts."""
    receiver, parts = Receiver(), dict[str, dict[int, bytes]]()
    for digest, artifact in release.artifacts.items():
        receiver.fetch(digest, artifact, [], time.monotonic(), 0.0)

    def whole() -> bool:
        for want in receiver.wishes(time.monotonic()):
            site.say("want", dump(want))
        for message in list(site.everything()):
            if "/chunk/" in message.topic:
                site.heard.remove(message)
                keep = receiver.chunk(message.payload, time.monotonic())
                if keep is not None:
                    parts.setdefault(keep.digest, {})[keep.index] = keep.data
                    receiver.kept(keep.digest, keep.index)
        return not any(receiver.wanting().values())

    until(whole, "every chunk")
    return {digest: b"".join(data for _, data in sorted(found.items())) for digest, found in parts.items()}


def test_a_release_reaches_the_sites_it_is_pushed_to(hub: Any, play: Any, made: Path, until: Any) -> None:
    sites = [play(name, ("edge/v1/fleet/chunk/#", 0)) for name in ("plant-01", "plant-02")]
    apart = play("store-01")
    to = ["--to", "plant-01", "--to", "plant-02", "--hub-dir", hub.folder]
    pushed = answer("release", "push", made, *to)
    assert (pushed["sites"], pushed["created"], len(pushed["uploaded"])) == ({"plant-01": 1, "plant-02": 1}, True, 2)
    for site in sites:
        wish = wished(site, hub)
        assert (wish.site, wish.generation) == (site.site, 1)
        release = Release.model_validate(wish.release)
        assert {digest_of(data) for data in fetch(site, release, until).values()} == set(release.artifacts)
        site.say("reported", dump(Reported(release=2, generation=1, state="active")), retain=True)
    again = answer("release", "push", made, *to)
    assert (again["sites"], again["created"], again["uploaded"]) == ({"plant-01": 2, "plant-02": 2}, False, [])
    assert not [message for message in apart.everything() if message.topic.endswith("desired")]

    def active() -> bool:
        listed = {each["site"]: each["state"] for each in answer("fleet", "ls", "--hub-dir", hub.folder)["sites"]}
        return listed == {"plant-01": "active", "plant-02": "active", "store-01": None}

    until(active, "both sites to be active")
    shown = answer("fleet", "show", "plant-01", "--hub-dir", hub.folder)
    assert (shown["release"], shown["desired"]["generation"], shown["gaps"]) == (2, 2, [])
    code, table, _ = command("fleet", "ls", "--hub-dir", hub.folder)
    assert (code, "plant-01" in table, "active" in table) == (0, True, True)
    code, details, _ = command("fleet", "show", "plant-01", "--hub-dir", hub.folder)
    assert (code, "should run: release 2, generation 2" in details) == (0, True)


def test_what_is_desired_outlives_the_hub_and_follows_a_hello(hub: Any, play: Any, made: Path) -> None:
    site = play("plant-01")
    answer("release", "push", made, "--all", "--hub-dir", hub.folder)
    assert wished(site, hub).generation == 1
    hub.kill()
    hub.start()
    assert wished(site, hub).generation == 1
    site.say("hello", dump(Hello(sync="s", epochs=[EpochState(epoch="aa" * 8, order=1, last={})])))
    assert wished(site, hub).generation == 1


def test_a_forged_wish_does_not_verify(hub: Any, play: Any, made: Path) -> None:
    site = play("plant-01")
    answer("release", "push", made, "--all", "--hub-dir", hub.folder)
    with pytest.raises(RejectedError, match="not signed"):
        verify(site.told("desired").replace(b'"sig":"', b'"sig":"00'), DESIRED_TYPE, hub.facts["director_key"])


def test_pushing_what_cannot_be_pushed(hub: Any, made: Path, written: Path, tmp_path: Path) -> None:
    code, _, err = command("release", "push", made, "--to", "plant-99", "--hub-dir", hub.folder)
    assert (code, "no site 'plant-99' is registered" in err) == (3, True)
    code, _, err = command("release", "push", made, "--hub-dir", hub.folder)
    assert (code, "--to SITE" in err) == (2, True)
    (written / "press.yaml").write_text(POLICY.replace("version: 1", "version: 2"))
    create(hub, written, tmp_path / "other")
    code, _, err = command("release", "push", tmp_path / "other", "--all", "--hub-dir", hub.folder)
    assert (code, "release 2 is another one" in err) == (3, True)
    blob = next((made / "blobs" / "sha256").iterdir())
    blob.write_bytes(blob.read_bytes() + b"x")
    code, _, err = command("release", "push", made, "--all", "--hub-dir", hub.folder)
    assert (code, "not the bytes" in err) == (3, True)


def test_a_hub_that_is_away(hub: Any, made: Path) -> None:
    (hub.folder / "wrong.token").write_text("wrong")
    code, _, err = command("fleet", "ls", "--hub", hub.facts["http"], "--token-file", hub.folder / "wrong.token")
    assert (code, "does not know this token" in err) == (2, True)
    url, token = hub.facts["http"], hub.folder / "operator.token"
    hub.stop()
    code, _, err = command("fleet", "ls", "--hub", url, "--token-file", token)
    assert (code, "does not answer" in err) == (4, True)
    code, _, err = command("fleet", "ls", "--hub-dir", hub.folder)
    assert (code, "does not run: start it" in err) == (4, True)
