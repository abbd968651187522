"""`edge-agent node provision` as an operator types it, against a hub that speaks the API over real HTTP."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.config import load_site
from edge_cli.main import main
from edge_models.bundle import Golden, write_bundle
from edge_models.contract import Contract, TensorSpec

TOKEN = "the-operators-token"

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
    where: {kind: factory}
    bundle: models/press.bundle
    policy: press.yaml
    source: {kind: mqtt, endpoint: sensors, topic: local/press}
    grants: [mqtt.publish]
  - name: shelf-watch
    where: {kind: shop}
    bundle: models/press.bundle
    policy: press.yaml
    source: {kind: mqtt, endpoint: sensors, topic: local/shelf}
"""


@dataclass
class Hub:
    """Registers sites, each once; `answer` changes what it says."""

    url: str = ""
    sites: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda answer: answer


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def reply(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def permitted(self) -> bool:
            if self.headers["Authorization"] == f"Bearer {TOKEN}":
                return True
            self.reply(401, {"error": "wrong token"})
            return False

        def do_GET(self) -> None:
            site = self.path.rpartition("/")[2]
            if self.permitted():
                known = site in state.sites
                self.reply(200 if known else 404, {"site": site} if known else {"error": "no such site"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self.permitted():
                return
            state.asked.append(body)
            site = body["site"]
            if site in state.sites and not body.get("replace"):
                self.reply(409, {"error": f"site {site} exists"})
                return
            state.sites[site] = body
            made = {
                "site": site,
                "broker_url": "mqtts://mqtt.hub.example:8883",
                "username": site,
                "password": f"hub-secret-{len(state.asked)}",
                "local_username": f"_local_{site}",
                "local_password": f"local-secret-{len(state.asked)}",
                "director_key": "ab" * 32,
            }
            self.reply(201, state.answer(made))

        def log_message(self, format: str, *args: Any) -> None:
            """A test's output is the test's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the operator works: a release file with its bundle and policy, and a token; it is the current folder."""
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
    (tmp_path / "models").mkdir()
    write_bundle(tmp_path / "models" / "press.bundle", contract=contract, graph=rng.bytes(500), golden=golden, card={})
    (tmp_path / "press.yaml").write_text(POLICY)
    (tmp_path / "release.yaml").write_text(RELEASE)
    (tmp_path / "token").write_text(TOKEN + "\n")
    monkeypatch.chdir(tmp_path)
    for name in ("EDGE_HUB", "EDGE_HUB_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def provision(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Type the command: a complete one, but for the options given here; None leaves one out."""

    def run(site: str = "plant-07", *more: str, **options: str | None) -> Said:
        given: dict[str, str | None] = {
            "hub": hub.url,
            "token-file": "token",
            "label": "kind=factory",
            "release": "release.yaml",
            "out": "kit",
            "hub-network": "203.0.113.0/24",
            "local-broker": "mqtt://192.0.2.10:1883",
        }
        given |= {name.replace("_", "-"): value for name, value in options.items()}
        words = [word for name, value in given.items() if value is not None for word in (f"--{name}", value)]
        monkeypatch.setattr("sys.argv", ["edge-agent", "node", "provision", site, *words, *more])
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run


def test_a_kit_for_a_site(provision: Run, hub: Hub, folder: Path) -> None:
    said = provision()
    assert (said.code, said.err) == (0, "next: kit/README.txt\n")
    assert hub.asked == [{"site": "plant-07", "labels": {"kind": "factory"}}]
    site = load_site(folder / "kit" / "site.yaml")
    config = site.config
    assert (config.site, config.labels, config.release) == ("plant-07", {"kind": "factory"}, 2)
    assert [agent.name for agent in config.agents] == ["press-guard"]
    assert config.grants == ["mqtt.publish"]
    assert config.endpoints["machines"].url == "mqtt://192.0.2.10:1883"
    assert (folder / "kit" / "release" / "press-guard.bundle").read_bytes() == (
        folder / "models" / "press.bundle"
    ).read_bytes()
    assert (folder / "kit" / "secrets" / "hub.password").read_text() == "hub-secret-1"
    assert len((folder / "kit" / "secrets" / "api.token").read_text()) >= 32


def test_as_json(provision: Run) -> None:
    said = provision("plant-07", "--json", hub_network=None)
    answer = json.loads(said.out)
    assert (answer["site"], answer["path"], answer["release"], answer["agents"]) == (
        "plant-07",
        "kit",
        2,
        ["press-guard"],
    )
    assert answer["warnings"] == [said.err.splitlines()[0].removeprefix("mind: ")]
    assert "any address" in answer["warnings"][0]


def test_options_reach_the_kit(provision: Run, folder: Path) -> None:
    said = provision(
        "plant-07", "--grant", "alert", broker="mqtt://127.0.0.1:1999", api_port="0", image="kit:1", local_broker=None
    )
    assert said.code == 0
    config = load_site(folder / "kit" / "site.yaml").config
    assert config.hub is not None
    assert config.api is not None
    assert (config.hub.broker, config.endpoints["sensors"].url) == ("mqtt://127.0.0.1:1999", "mqtt://127.0.0.1:1999")
    assert (config.api.port, config.grants) == (0, ["alert", "mqtt.publish"])
    assert "image: kit:1" in (folder / "kit" / "manifests" / "10-site.yaml").read_text()


def test_a_site_is_provisioned_once_unless_it_is_replaced(provision: Run, folder: Path) -> None:
    assert provision().code == 0
    again = provision(out="kit-2")
    assert again.code == 3
    assert again.err == (
        "error: plant-07 is provisioned already: --replace gives it new passwords, and its old kit then ends\n"
    )
    assert not (folder / "kit-2").exists()
    assert provision("plant-07", "--replace", out="kit-2").code == 0
    passwords = {(folder / kit / "secrets" / "hub.password").read_text() for kit in ("kit", "kit-2")}
    assert len(passwords) == 2


@pytest.mark.parametrize(
    ("site", "options", "code", "says"),
    [
        ("Plant_07", {}, 2, "site 'Plant_07'"),
        ("hub", {}, 2, "site id 'hub' is reserved"),
        ("plant-07", {"label": "factory"}, 2, "label 'factory': write KEY=VALUE"),
        ("plant-07", {"label": "line 3=a"}, 2, "key 'line 3'"),
        ("plant-07", {"out": "models"}, 2, "kit models: something is there already"),
        ("plant-07", {"image": "kit:latest"}, 2, "image 'kit:latest'"),
        ("plant-07", {"hub_network": "hub.example"}, 2, "network 'hub.example'"),
        ("plant-07", {"broker": "mqtt://mqtt.hub.example"}, 2, "use mqtts://"),
        ("plant-07", {"local_broker": "http://192.0.2.1"}, 2, "broker 'http://192.0.2.1'"),
        ("plant-07", {"token_file": "nowhere"}, 2, "token file nowhere: No such file"),
        ("plant-07", {"token_file": "release.yaml"}, 2, "token file release.yaml: wanted one token"),
        ("plant-07", {"token_file": None}, 2, "--token-file"),
        ("plant-07", {"release": "nowhere.yaml"}, 2, "nowhere.yaml: No such file"),
        ("plant-07", {"release": "token"}, 2, "token: wanted keys and values"),
    ],
)
def test_a_mistake_is_one_line_and_asks_the_hub_nothing(
    provision: Run, hub: Hub, folder: Path, site: str, options: dict[str, str | None], code: int, says: str
) -> None:
    before = sorted(folder.rglob("*"))
    said = provision(site, **options)
    assert (said.code, said.out) == (code, "")
    assert says in said.err
    assert said.err.count("\n") == 1
    assert hub.asked == []
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("file", "old", "new", "code", "says"),
    [
        ("release.yaml", "release: 2", "release: 0", 2, "release.yaml: release:"),
        ("release.yaml", "grants:", "grant:", 2, "did you mean 'grants'"),
        ("release.yaml", "press.bundle", "other.bundle", 2, "agent 'press-guard': bundle models/other.bundle"),
        ("release.yaml", "shelf-watch", "press-guard", 2, "two agents are named 'press-guard'"),
        ("press.yaml", "prediction.label ==", "predicton.label ==", 2, "did you mean 'prediction.label'"),
        ("models/press.bundle", "probabilities", "probabilitieZ", 3, "agent 'press-guard': models/press.bundle"),
    ],
)
def test_a_release_that_would_not_run_is_refused_before_the_hub_is_asked(
    provision: Run, hub: Hub, folder: Path, file: str, old: str, new: str, code: int, says: str
) -> None:
    data = (folder / file).read_bytes()
    assert old.encode() in data
    (folder / file).write_bytes(data.replace(old.encode(), new.encode()))
    said = provision()
    assert said.code == code
    assert says in said.err
    assert said.err.count("\n") == 1
    assert hub.asked == []
    assert not (folder / "kit").exists()


def test_a_hub_that_is_away(provision: Run, folder: Path) -> None:
    said = provision(hub="http://127.0.0.1:9")
    assert said.code == 4
    assert "127.0.0.1:9" in said.err
    assert said.err.count("\n") == 1
    assert not (folder / "kit").exists()


def test_a_token_the_hub_does_not_know(provision: Run, folder: Path) -> None:
    (folder / "token").write_text("another")
    said = provision()
    assert said.code in (2, 3)
    assert said.err.count("\n") == 1
    assert not (folder / "kit").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"password": ""}, "no usable 'password'"),
        ({"director_key": "nonsense-secret"}, "no usable 'director_key'"),
        ({"broker_url": "mqtt://mqtt.hub.example"}, "use mqtts://"),
    ],
)
def test_an_answer_that_makes_no_kit(provision: Run, hub: Hub, folder: Path, change: dict[str, str], says: str) -> None:
    hub.answer = lambda answer: {**answer, **change}
    said = provision()
    assert said.code in (2, 3)
    assert says in said.err
    assert "secret" not in said.err
    assert not (folder / "kit").exists()
