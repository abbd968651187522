"""`model|policy|agents publish`, `release create --trust` and `release push`, against a real hub's API.

The hub's link is not started: nothing here needs a broker.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from operator_desk import Operator, no_passphrase

from edge_cli.hub_client import HubClient
from edge_cli.main import main
from edge_cli.publish import newest
from edge_cli.release import make_release
from edge_hub.api.app import make_app
from edge_hub.broker import BrokerFolder
from edge_hub.delivery.trust import packed_set
from edge_hub.folder import HubFolder
from edge_hub.http_server import HttpServer, bind, url_of
from edge_hub.hub import Hub
from edge_models.bundle import Golden, write_bundle
from edge_models.contract import Contract
from edge_models.digests import digest_of
from edge_models.errors import RejectedError
from edge_models.tensors import TensorSpec
from edge_sync.trust.client import Trust, Trusted

POLICY = """\
policy: press-guard
version: 1
rules:
  - name: stop
    when: prediction.label == "anomaly"
    do: {tool: alert, with: {message: =prediction.label}}
"""

RELEASE = """\
release: 2
agents:
  - name: press-guard
    bundle: press.bundle
    policy: press.yaml
    source: {kind: mqtt, endpoint: sensors, topic: local/press}
    grants: [alert]
"""


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = HubFolder(tmp_path / "hub")
    made = Hub(folder, BrokerFolder(folder.broker), "mqtt://127.0.0.1:1883")
    made.sites.register("plant-01", {}, False, "operator")
    yield made
    made.close()


@pytest.fixture
def client(hub: Hub) -> Iterator[HubClient]:
    """Its API; `hub.json` says where, as of a hub process."""
    listening = bind("127.0.0.1:0")
    url = url_of(listening)
    server = HttpServer(make_app(hub), listening)
    server.start()
    (hub.folder.path / "hub.json").write_text(json.dumps({"http": url}))
    yield HubClient(url, hub.folder.token)
    server.close()


@pytest.fixture
def operator(client: HubClient, tmp_path: Path) -> Operator:
    """Who signs for this hub; their folder is `trust`."""
    return Operator.of_hub(tmp_path / "trust", client.request)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Types `edge-agent WORDS` where a bundle, a policy and a release that names them lie."""
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
    monkeypatch.chdir(tmp_path)
    for name in ("EDGE_HUB", "EDGE_HUB_TOKEN_FILE", "EDGE_TRUST_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)

    def typed(*words: str) -> Said:
        monkeypatch.setattr("sys.argv", ["edge-agent", *words])
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return Said(code, *capsys.readouterr())

    return typed


def answer(said: Said) -> Any:
    assert said.code == 0, said.err
    return json.loads(said.out)


def refused(said: Said, code: int, says: str) -> None:
    """One clear line, and nothing else."""
    assert (said.code, said.out) == (code, "")
    assert says in said.err
    assert said.err.count("\n") == 1


def trusted(hub: Hub, operator: Operator, folder: Path) -> Trust:
    """What a new site believes of what the hub publishes."""
    with hub.store.reading() as db:
        packed = packed_set(db)
    assert packed is not None
    trust = Trusted(folder / f"site-{time.monotonic_ns()}", operator.root, lambda: time.time_ns() // 1000).take(packed)
    assert trust is not None
    return trust


HERE = ("--trust", "trust", "--hub-dir", "hub")


@pytest.mark.parametrize(
    ("command", "file", "kind"), [("model", "press.bundle", "models"), ("policy", "press.yaml", "policies")]
)
def test_a_file_is_signed_uploaded_and_said_to_sites(
    command: str, file: str, kind: Any, run: Run, hub: Hub, operator: Operator, tmp_path: Path
) -> None:
    content = (tmp_path / file).read_bytes()
    digest = digest_of(content)
    assert not trusted(hub, operator, tmp_path).allows(kind, digest)
    said = run(command, "publish", file, *HERE)
    path = f"{kind}/{digest.removeprefix('sha256:')}"
    assert said == Said(0, f"{file}: signed and published as {path}\n", "")
    trust = trusted(hub, operator, tmp_path)
    assert trust.allows(kind, digest, len(content))
    assert trust.versions[kind] == 2
    assert hub.releases.has_artifact(digest)
    assert operator.repository.signed()[path].name == file

    again = answer(run(command, "publish", file, *HERE, "--json"))
    assert (again["digest"], again["name"], again["kind"], again["new"]) == (digest, file, kind, False)
    assert again["versions"] == trust.versions, "nothing is signed twice"
    assert run(command, "publish", file, *HERE).out == f"{file}: was signed already; published as {path}\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("model", "publish", "press.yaml"), 3, "bundle"),
        (("model", "publish", "nowhere.bundle"), 2, "nowhere.bundle: No such file"),
        (("policy", "publish", "release.yaml"), 2, "release.yaml:1: key 'policy' is missing"),
        (("policy", "publish", "nowhere.yaml"), 2, "nowhere.yaml: No such file"),
        (("agents", "publish", "press.yaml"), 2, "press.yaml: "),
    ],
)
def test_what_would_not_run_is_not_signed(
    words: tuple[str, ...], code: int, says: str, run: Run, hub: Hub, operator: Operator, tmp_path: Path
) -> None:
    before = operator.texts
    refused(run(*words, *HERE), code, says)
    assert (operator.texts, trusted(hub, operator, tmp_path).versions["timestamp"]) == (before, 1)


def test_nothing_is_signed_where_the_hub_is_away(run: Run, operator: Operator, tmp_path: Path) -> None:
    before = operator.texts
    token = ("--token-file", "hub/operator.token")
    with bind("127.0.0.1:0") as held:
        url = url_of(held)
    for command, file in (("model", "press.bundle"), ("policy", "press.yaml")):
        refused(run(command, "publish", file, "--trust", "trust", "--hub", url, *token), 4, "does not answer")
    assert operator.texts == before


def test_a_folder_that_is_no_operators(run: Run, operator: Operator) -> None:
    said = run("model", "publish", "press.bundle", "--trust", "hub", "--hub-dir", "hub")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)


def test_agents_are_signed_once_all_they_name_is(run: Run, hub: Hub, operator: Operator, tmp_path: Path) -> None:
    release, _ = make_release(tmp_path / "release.yaml")
    for command, missing in (("model", "press.bundle"), ("policy", "press.yaml")):
        refused(run("agents", "publish", "release.yaml", *HERE), 3, f"{missing} is not signed: publish it first")
        assert not trusted(hub, operator, tmp_path).allows("agents", release.document_digest)
        assert run(command, "publish", missing, *HERE).code == 0
    made = answer(run("agents", "publish", "release.yaml", *HERE, "--json"))
    assert (made["digest"], made["name"], made["new"]) == (release.document_digest, "release 2", True)
    size = len(release.document.encode())
    assert trusted(hub, operator, tmp_path).allows("agents", release.document_digest, size)
    answer(run("release", "create", "release.yaml", "--out", "out", "--json"))
    assert answer(run("release", "push", "out", "--all", "--hub-dir", "hub", "--json"))["sites"] == {"plant-01": 1}


def test_an_agent_that_names_a_withdrawn_model_is_refused(run: Run, operator: Operator, tmp_path: Path) -> None:
    for command, file in (("model", "press.bundle"), ("policy", "press.yaml")):
        assert run(command, "publish", file, *HERE).code == 0
    digest = digest_of((tmp_path / "press.bundle").read_bytes())
    operator.repository.withdraw(f"models/{digest.removeprefix('sha256:')}", no_passphrase)
    refused(run("agents", "publish", "release.yaml", *HERE), 3, "press.bundle is not signed")


def test_a_release_that_is_created_unsigned_is_kept_by_the_hub_and_not_pushed(
    run: Run, hub: Hub, operator: Operator, tmp_path: Path
) -> None:
    said = run("release", "create", "release.yaml", "--out", "out")
    assert said.code == 0
    assert "not signed: sites refuse it" in said.err
    assert not (tmp_path / "out" / "trust").exists()
    refused(run("release", "push", "out", "--all", "--hub-dir", "hub"), 3, "its agents document is not signed")
    assert [each["release"] for each in hub.releases.all()] == [2]
    made = answer(run("release", "create", "release.yaml", "--trust", "trust", "--out", "out", "--json"))
    assert (made["signed"], len(made["newly_signed"])) == (True, 3)
    assert answer(run("release", "push", "out", "--all", "--hub-dir", "hub", "--json"))["sites"] == {"plant-01": 1}


def test_who_pushes_a_signed_release_needs_no_key(run: Run, hub: Hub, operator: Operator, tmp_path: Path) -> None:
    """The folder has the signatures; keys may be away when it is pushed."""
    made = answer(run("release", "create", "release.yaml", "--trust", "trust", "--out", "out", "--json"))
    assert set(made["artifacts"]) == {f"sha256:{path.partition('/')[2]}" for path in made["newly_signed"][1:]}
    handed = {path.name: path.read_bytes() for path in (tmp_path / "out" / "trust").iterdir()}
    assert handed == operator.repository.files()
    assert not list((tmp_path / "out").rglob("*.pem"))
    assert trusted(hub, operator, tmp_path).versions["agents"] == 1, "the hub was not told yet"
    (tmp_path / "trust").rename(tmp_path / "safe")
    pushed = answer(run("release", "push", "out", "--all", "--hub-dir", "hub", "--json"))
    assert (pushed["sites"], pushed["created"]) == ({"plant-01": 1}, True)
    release, blobs = make_release(tmp_path / "release.yaml")
    trust = trusted(hub, operator, tmp_path)
    assert trust.allows("agents", release.document_digest)
    [agent] = release.agents
    assert trust.allows("models", agent.bundle, len(blobs[digest_of((tmp_path / "press.bundle").read_bytes())]))
    assert trust.allows("policies", agent.policy)


def test_a_release_that_was_signed_earlier_takes_nothing_back(
    run: Run, hub: Hub, operator: Operator, tmp_path: Path
) -> None:
    assert run("release", "create", "release.yaml", "--trust", "trust", "--out", "old").code == 0
    (tmp_path / "press.yaml").write_text(POLICY.replace("version: 1", "version: 2"))
    (tmp_path / "release.yaml").write_text(RELEASE.replace("release: 2", "release: 3"))
    assert run("release", "create", "release.yaml", "--trust", "trust", "--out", "new").code == 0
    assert run("release", "push", "new", "--all", "--hub-dir", "hub").code == 0
    before = trusted(hub, operator, tmp_path)
    assert answer(run("release", "push", "old", "--all", "--hub-dir", "hub", "--json"))["sites"] == {"plant-01": 2}
    assert trusted(hub, operator, tmp_path) == before


def test_a_release_of_another_operator_is_refused_before_it_is_uploaded(
    run: Run, hub: Hub, operator: Operator, tmp_path: Path
) -> None:
    other = Operator(tmp_path / "other", hub.trust.online_key, hub.director_key)
    other.repository.renew(no_passphrase)
    assert run("release", "create", "release.yaml", "--trust", "other", "--out", "out").code == 0
    refused(run("release", "push", "out", "--all", "--hub-dir", "hub"), 3, "is it of another operator?")
    assert hub.releases.all() == []


def test_creating_again_signs_nothing_and_leaves_one_set(run: Run, operator: Operator, tmp_path: Path) -> None:
    first = answer(run("release", "create", "release.yaml", "--trust", "trust", "--out", "out", "--json"))
    assert len(first["newly_signed"]) == 3
    again = answer(run("release", "create", "release.yaml", "--trust", "trust", "--out", "out", "--json"))
    assert (again["signed"], again["newly_signed"]) == (True, [])
    operator.repository.rotate("models", no_passphrase)
    assert run("release", "create", "release.yaml", "--trust", "trust", "--out", "out").code == 0
    handed = {path.name for path in (tmp_path / "out" / "trust").iterdir()}
    assert handed == set(operator.texts), "what was there before is gone"


def test_keys_on_a_stick_and_under_a_passphrase(run: Run, hub: Hub, client: HubClient, tmp_path: Path) -> None:
    made = answer(_init(run, tmp_path))
    assert made["versions"]["timestamp"] == 1
    stick = tmp_path / "stick"
    stick.mkdir()
    (tmp_path / "trust" / "keys" / "models-1.pem").rename(stick / "models-1.pem")
    publish = ("model", "publish", "press.bundle", *HERE)
    refused(run(*publish, "--passphrase-file", "secret"), 2, "give its folder with --keys")
    refused(run(*publish, "--keys", "stick"), 2, "a passphrase is needed")
    assert run(*publish, "--keys", "stick", "--passphrase-file", "secret").code == 0
    digest = digest_of((tmp_path / "press.bundle").read_bytes())
    assert hub.releases.has_artifact(digest)


def _init(run: Run, folder: Path) -> Said:
    (folder / "secret").write_text("correct horse\n")
    return run("trust", "init", "--out", "trust", "--hub-dir", "hub", "--passphrase-file", "secret", "--json")


def test_versions_are_read_from_names() -> None:
    assert newest({"1.root.json": b"", "12.root.json": b"", "3.models.json": b""}) == {"root": 12, "models": 3}
    for name in ("root.json", "timestamp.json", "1.root", "readme.txt"):
        with pytest.raises(RejectedError, match="is no file of trust metadata"):
            newest({name: b""})


def test_the_repository_is_what_the_commands_wrote(run: Run, operator: Operator, tmp_path: Path) -> None:
    """What `release create` signed is what `trust status` lists."""
    made = answer(run("release", "create", "release.yaml", "--trust", "trust", "--out", "out", "--json"))
    shown = answer(run("trust", "status", "trust", "--json"))
    assert set(shown["signed"]) == set(made["newly_signed"])
    names = {each["name"] for each in shown["signed"].values()}
    assert names == {"release 2", "press.bundle", "press.yaml"}
