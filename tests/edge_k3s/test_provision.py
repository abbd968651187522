"""`edge-agent node provision` as an operator types it, against a hub process; only a hub that is wrong is played."""

import http.client
import itertools
import json
import queue
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from operator_desk import Operator, no_passphrase

from edge_agent.config import load_site
from edge_cli.hub_client import HubClient, HubRefusal, connect
from edge_cli.main import main
from edge_cli.release import make_release, publish_release
from edge_models.bundle import Golden, write_bundle
from edge_models.contract import Contract
from edge_models.digests import Digest, digest_of
from edge_models.tensors import TensorSpec
from edge_sync.mqtt import Broker, Down, Event, Link, Up
from edge_sync.release import Release
from edge_sync.trust.repository import Repository

DEADLINE_S = 30.0

POLICY = """\
policy: press-guard
version: 1
abstain_below: 0.5
rules:
  - name: stop
    when: prediction.label == "anomaly"
    do: {tool: mqtt.publish, with: {endpoint: machines, topic: line/stop, payload: {why: =prediction.label}}}
"""

RELEASE = """\
release: NUMBER
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
    grants: [mqtt.publish]
"""

numbers = itertools.count(2)
"""Of sites and releases: the hub is every test's, and a site and a release at it are one test's."""


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S:.0f} s in vain for {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Hub:
    """A hub that runs, as its operator sees it."""

    folder: Path

    @property
    def client(self) -> HubClient:
        return connect(None, None, self.folder)

    @property
    def trust(self) -> Path:
        """The folder of who signs what may run at its sites."""
        return self.folder.with_suffix(".trust")

    @property
    def facts(self) -> dict[str, Any]:
        """What it announces: where it is and its key."""
        return dict(json.loads((self.folder / "hub.json").read_bytes()))

    @property
    def url(self) -> str:
        return str(self.facts["http"])

    @property
    def token(self) -> str:
        return (self.folder / "operator.token").read_text().strip()

    def site(self, name: str) -> dict[str, Any]:
        return dict(self.client.request("GET", f"/api/v1/sites/{name}"))

    def audit(self) -> list[tuple[str, Any]]:
        """All that was ever changed at it: what, and in which detail."""
        with closing(sqlite3.connect(f"file:{self.folder / 'hub.db'}?mode=ro", uri=True)) as db:
            return [(what, json.loads(detail)) for what, detail in db.execute("SELECT what, detail FROM audit")]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """`edge-agent hub serve` as a child, with a broker of its own on loopback."""
    folder = tmp_path_factory.mktemp("hub") / "hub"
    log = folder.with_suffix(".log")
    words = ["hub", "serve", str(folder), "--http", "127.0.0.1:0", "--broker", "embedded"]
    with log.open("wb") as said:
        child = subprocess.Popen([sys.executable, "-m", "edge_cli.main", *words], stdin=subprocess.DEVNULL, stderr=said)
    try:
        until(lambda: (folder / "hub.json").exists() or child.poll() is not None, "the hub to be ready")
        assert child.poll() is None, log.read_text()
        made = Hub(folder)
        Operator.of_hub(made.trust, made.client.request)
        yield made
        child.terminate()
        assert child.wait(DEADLINE_S) == 0
        assert "Traceback" not in log.read_text()
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def nobody() -> Iterator[str]:
    """Where a hub would be if it were not away: the port is held, and refuses every connection."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@dataclass
class HubThatAnswersWrongly:
    """Hands every request to the real hub and its answer back, but for one answer, which is spoilt."""

    url: str = ""
    asked: tuple[str, str] = ("", "")
    """Method and path of the request whose answer is spoilt."""
    spoil: Callable[[Any], object] = lambda answer: answer
    """The JSON to send instead; bytes are sent as they are."""
    true: list[Any] = field(default_factory=list)
    """What the hub had answered there."""


@pytest.fixture
def wrong_hub(hub: Hub) -> Iterator[HubThatAnswersWrongly]:
    wrong = HubThatAnswersWrongly()

    class Handler(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with closing(http.client.HTTPConnection(hub.url.removeprefix("http://"), timeout=DEADLINE_S)) as real:
                real.request(self.command, self.path, body, dict(self.headers))
                answer = real.getresponse()
                data = answer.read()
            if (self.command, self.path) == wrong.asked:
                wrong.true.append(json.loads(data))
                spoilt = wrong.spoil(json.loads(data))
                data = spoilt if isinstance(spoilt, bytes) else json.dumps(spoilt).encode()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = pass_on

        def log_message(self, format: str, *args: Any) -> None:
            """A test's output is the test's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        wrong.url = f"http://127.0.0.1:{server.server_port}"
        yield wrong
        server.shutdown()
        thread.join()


@dataclass(frozen=True)
class Desk:
    """Where the operator works: a release file with its bundle and policy, and the token; and what they work on."""

    folder: Path
    site: str
    release: int

    def edit(self, file: str, old: str, new: str) -> None:
        data = (self.folder / file).read_bytes()
        assert old.encode() in data
        (self.folder / file).write_bytes(data.replace(old.encode(), new.encode()))

    @property
    def listing(self) -> list[Path]:
        """All that is there: what a command left behind would show."""
        return sorted(self.folder.rglob("*"))


@pytest.fixture
def desk(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk with a site and a release that no other test has; its folder is the current one."""
    number = next(numbers)
    rng = np.random.default_rng(number)
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
    (tmp_path / "press.yaml").write_text(f"# of release {number}\n{POLICY}")
    (tmp_path / "release.yaml").write_text(RELEASE.replace("NUMBER", str(number)))
    (tmp_path / "token").write_text(hub.token + "\n")
    monkeypatch.chdir(tmp_path)
    for name in ("EDGE_HUB", "EDGE_HUB_TOKEN_FILE", "EDGE_TRUST"):
        monkeypatch.delenv(name, raising=False)
    return Desk(tmp_path, f"plant-{number:02}", number)


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def provision(hub: Hub, desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Type the command: a complete one, but for the options given here; None leaves one out."""

    def run(*more: str, site: str = desk.site, **options: str | None) -> Said:
        given: dict[str, str | None] = {
            "hub": hub.url,
            "token-file": "token",
            "trust": str(hub.trust),
            "label": "kind=factory",
            "release": "release.yaml",
            "out": "kit",
            "hub-network": "203.0.113.0/24",
            "broker": "mqtts://mqtt.hub.example:8883",
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
        secrets = {path.read_text() for path in desk.folder.glob("kit*/secrets/*")} | {hub.token}
        assert not [secret for secret in secrets if secret in out + err]
        return Said(code, out, err)

    return run


@contextmanager
def connection(broker: Broker, topic: str) -> Iterator["queue.SimpleQueue[Event]"]:
    """A link that subscribes to `topic`, and what it tells."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    link = Link(broker, events.put, [(topic, 1)])
    link.start()
    try:
        yield events
    finally:
        link.close()


def lets_in(broker: Broker, topic: str) -> bool:
    """Whether the broker takes this user and grants it the topic, or refuses it."""
    with connection(broker, topic) as events:
        first = events.get(timeout=DEADLINE_S)
    assert first == Up() or (isinstance(first, Down) and "refused" in first.reason), first
    return first == Up()


def test_a_kit_for_a_site(provision: Run, hub: Hub, desk: Desk) -> None:
    said = provision()
    kit = desk.folder / "kit"
    files = sum(path.is_file() for path in kit.rglob("*"))
    assert (said.code, said.err) == (0, "next: kit/README.txt\n")
    assert said.out == f"kit: {desk.site}, release {desk.release} (press-guard), {files} files\n"
    known = hub.site(desk.site)
    assert (known["labels"], known["online"], known["desired"]) == ({"kind": "factory"}, False, None)
    config = load_site(kit / "site.yaml").config
    assert (config.site, config.labels, config.release) == (desk.site, {"kind": "factory"}, desk.release)
    assert [agent.name for agent in config.agents] == ["press-guard"]
    assert config.grants == ["mqtt.publish"]
    assert config.endpoints["machines"].url == "mqtt://192.0.2.10:1883"
    assert config.hub is not None
    assert (config.hub.broker, config.hub.username) == ("mqtts://mqtt.hub.example:8883", desk.site)
    assert load_site(kit / "site.yaml").trust_root() == (hub.trust / "metadata" / "1.root.json").read_bytes()
    for name, source in (("bundle", "models/press.bundle"), ("policy.yaml", "press.yaml")):
        assert (kit / "release" / f"press-guard.{name}").read_bytes() == (desk.folder / source).read_bytes()
    assert len((kit / "secrets" / "api.token").read_text()) >= 32


def test_the_kits_passwords_are_those_of_the_hubs_broker(provision: Run, hub: Hub, desk: Desk) -> None:
    said = provision(broker=None, local_broker=None)
    url = hub.facts["broker"]
    assert said.code == 0
    assert said.err.startswith(f"mind: {url} is this machine: ")
    site = load_site(desk.folder / "kit" / "site.yaml")
    machines = site.endpoint("machines")
    assert (site.broker().url, machines.url) == (url, url)
    assert machines.topic_prefix == f"local/{desk.site}/"
    assert machines.username is not None
    local = Broker(machines.url, machines.username, machines.username, machines.password_file)
    until(lambda: lets_in(site.broker(), f"edge/v1/{desk.site}/down/#"), "the site to be let in")
    until(lambda: lets_in(local, f"{machines.topic_prefix}#"), "its machines to be let in")


def test_as_json(provision: Run, desk: Desk) -> None:
    said = provision("--json", hub_network=None)
    answer = json.loads(said.out)
    assert (said.code, answer["site"], answer["path"], answer["release"], answer["agents"]) == (
        0,
        desk.site,
        "kit",
        desk.release,
        ["press-guard"],
    )
    assert "".join(f"mind: {warning}\n" for warning in answer["warnings"]) == said.err
    assert len(answer["warnings"]) == 1
    assert "any address" in answer["warnings"][0]


def test_options_reach_the_kit(provision: Run, desk: Desk) -> None:
    said = provision("--grant", "alert", broker="mqtt://127.0.0.1:1999", api_port="0", image="kit:1", local_broker=None)
    assert said.code == 0
    config = load_site(desk.folder / "kit" / "site.yaml").config
    assert config.hub is not None
    assert config.api is not None
    assert (config.hub.broker, config.endpoints["sensors"].url) == ("mqtt://127.0.0.1:1999", "mqtt://127.0.0.1:1999")
    assert (config.api.port, config.grants) == (0, ["alert", "mqtt.publish"])
    assert "image: kit:1" in (desk.folder / "kit" / "manifests" / "10-site.yaml").read_text()


def test_a_site_where_no_agent_runs(provision: Run, desk: Desk) -> None:
    said = provision(label="kind=office")
    assert (said.code, "(no agents)" in said.out) == (0, True)
    assert said.err.startswith(f"mind: no agent of release {desk.release} runs at a site with these labels\n")


def test_a_site_is_provisioned_once_unless_it_is_replaced(provision: Run, hub: Hub, desk: Desk) -> None:
    assert provision(broker=None).code == 0
    old, down = load_site(desk.folder / "kit" / "site.yaml").broker(), f"edge/v1/{desk.site}/down/#"
    desk.edit("release.yaml", f"release: {desk.release}", f"release: {next(numbers)}")
    before, listing = hub.audit(), desk.listing
    again = provision(out="kit-2", label="kind=shop")
    assert again.code == 3
    assert again.err == (
        f"error: {desk.site} is provisioned already: --replace gives it new passwords, and its old kit then ends\n"
    )
    assert (hub.audit(), desk.listing) == (before, listing)
    until(lambda: lets_in(old, down), "the old kit to be let in")
    with connection(old, down) as events:
        assert events.get(timeout=DEADLINE_S) == Up()
        assert provision("--replace", out="kit-2", label="kind=shop", broker=None).code == 0
        new = load_site(desk.folder / "kit-2" / "site.yaml").broker()
        until(lambda: lets_in(new, down), "the new kit to be let in")
        assert isinstance(events.get(timeout=DEADLINE_S), Down)
    assert not lets_in(old, down)
    assert hub.site(desk.site)["labels"] == {"kind": "shop"}


def test_a_name_that_is_mistyped_is_no_site_to_replace(provision: Run, hub: Hub, desk: Desk) -> None:
    said = provision("--replace")
    assert said.code == 3
    assert said.err.startswith(f"error: the hub knows no site '{desk.site}' to replace: `edge-agent fleet ls` has the")
    assert desk.site not in {each["site"] for each in hub.client.request("GET", "/api/v1/sites")["sites"]}
    assert not (desk.folder / "kit").exists()


def test_the_operators_folder_of_another_hub_makes_no_kit(provision: Run, hub: Hub, desk: Desk) -> None:
    """The site would join, and then believe nothing that the hub says."""
    Operator(desk.folder / "trust", "0a" * 32, "0b" * 32)
    said = provision(trust="trust")
    assert said.code == 3
    assert said.err.startswith("error: the operator's folder is another hub's (its root names another online key)")
    assert desk.site not in {each["site"] for each in hub.client.request("GET", "/api/v1/sites")["sites"]}
    assert not (desk.folder / "kit").exists()


def test_a_replaced_site_keeps_its_labels_unless_there_are_new_ones(provision: Run, hub: Hub, desk: Desk) -> None:
    assert provision().code == 0
    desk.edit("release.yaml", f"release: {desk.release}", f"release: {next(numbers)}")
    said = provision("--replace", out="kit-2", label=None)
    assert (said.code, "(no agents)" in said.out) == (0, False)
    assert hub.site(desk.site)["labels"] == {"kind": "factory"}
    assert "kind: factory" in (desk.folder / "kit-2" / "site.yaml").read_text()


def test_the_hub_knows_the_release_before_the_site(provision: Run, hub: Hub, desk: Desk) -> None:
    release, blobs = make_release(Path("release.yaml"))
    before = hub.audit()
    assert provision().code == 0
    stored = [("artifact stored", {"digest": digest, "size": len(blob)}) for digest, blob in blobs.items()]
    assert len(stored) == 2
    assert hub.audit()[len(before) :] == [
        *stored,
        ("release created", {"release": desk.release}),
        ("site registered", {"site": desk.site, "again": False}),
    ]
    listed = hub.client.request("GET", "/api/v1/releases")["releases"]
    found = [each for each in listed if each["release"] == desk.release]
    assert [(each["agents"], each["artifacts"]) for each in found] == [(["press-guard", "shelf-watch"], 2)]
    known = hub.client.request("GET", f"/api/v1/releases/{desk.release}")
    assert Release.model_validate(known) == release
    for digest, blob in blobs.items():
        assert (hub.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes() == blob


def test_a_second_site_with_the_same_release_uploads_nothing(provision: Run, hub: Hub, desk: Desk) -> None:
    assert provision().code == 0
    before, second = hub.audit(), f"{desk.site}-b"
    said = provision(site=second, out="kit-2", label="kind=shop")
    assert (said.code, f"{second}, release {desk.release} (shelf-watch)" in said.out) == (0, True)
    assert hub.audit()[len(before) :] == [("site registered", {"site": second, "again": False})]
    # The hub would not note bytes it has already; that none were sent is seen where they are read to be sent.
    release, _ = make_release(Path("release.yaml"))
    assert publish_release(release, lambda digest: pytest.fail(f"{digest} is sent"), hub.client) == (False, [])


def test_the_next_release_uploads_only_what_is_new(provision: Run, hub: Hub, desk: Desk) -> None:
    assert provision().code == 0
    before, later = hub.audit(), next(numbers)
    desk.edit("release.yaml", f"release: {desk.release}", f"release: {later}")
    desk.edit("press.yaml", "version: 1", "version: 2")
    release, blobs = make_release(Path("release.yaml"))
    policy = digest_of((desk.folder / "press.yaml").read_bytes())
    assert publish_release(release, lambda digest: blobs[Digest(digest)], hub.client) == (True, [policy])
    assert hub.audit()[len(before) :] == [
        ("artifact stored", {"digest": policy, "size": len(blobs[policy])}),
        ("release created", {"release": later}),
    ]
    before = hub.audit()
    assert provision("--replace", out="kit-2").code == 0
    assert hub.audit()[len(before) :] == [("site registered", {"site": desk.site, "again": True})]


def test_another_release_of_the_same_number_changes_nothing(provision: Run, hub: Hub, desk: Desk) -> None:
    assert provision().code == 0
    desk.edit("press.yaml", "version: 1", "version: 2")
    before, listing = hub.audit(), desk.listing
    refused = Said(
        3, "", f"error: the hub's release {desk.release} is another one: make yours again with a higher number\n"
    )
    assert provision(site=f"{desk.site}-b", out="kit-2") == refused
    assert provision("--replace", out="kit-2") == refused
    assert (hub.audit(), desk.listing) == (before, listing)
    with pytest.raises(HubRefusal, match="no site"):
        hub.site(f"{desk.site}-b")


def test_operators_at_once_make_a_release_known_once(hub: Hub, desk: Desk) -> None:
    release, blobs = make_release(Path("release.yaml"))
    at_once = threading.Barrier(4, timeout=DEADLINE_S)

    def publish(_: int) -> bool:
        at_once.wait()
        return publish_release(release, lambda digest: blobs[Digest(digest)], hub.client)[0]

    with ThreadPoolExecutor(4) as operators:
        assert sorted(operators.map(publish, range(4))) == [False, False, False, True]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"site": "Plant_07"}, "site 'Plant_07'"),
        ({"site": "hub"}, "site id 'hub' is reserved"),
        ({"label": "factory"}, "label 'factory': write KEY=VALUE"),
        ({"label": "line 3=a"}, "key 'line 3'"),
        ({"out": "models"}, "kit models: something is there already"),
        ({"image": "kit:latest"}, "image 'kit:latest'"),
        ({"hub_network": "hub.example"}, "network 'hub.example'"),
        ({"broker": "mqtt://mqtt.hub.example"}, "use mqtts://"),
        ({"local_broker": "http://192.0.2.1"}, "--local-broker 'http://192.0.2.1': write mqtt://HOST:1883"),
        (
            {"local_broker": "192.0.2.1"},
            "--local-broker '192.0.2.1': write mqtt://HOST:1883, or mqtts://HOST:8883 where",
        ),
        ({"hub": "http://192.0.2.1:8600"}, "use https://"),
        ({"token_file": "nowhere"}, "token file nowhere: No such file"),
        ({"token_file": "release.yaml"}, "token file release.yaml: wanted one token"),
        ({"token_file": None}, "--token-file"),
        ({"release": "nowhere.yaml"}, "nowhere.yaml: No such file"),
        ({"release": "token"}, "token: wanted keys and values"),
    ],
)
def test_a_mistake_is_one_line_and_asks_the_hub_nothing(
    provision: Run, nobody: str, desk: Desk, options: dict[str, Any], says: str
) -> None:
    """Were the hub asked, the line would say that it is away."""
    before = desk.listing
    said = provision(**{"hub": nobody, **options})
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert said.err.count("\n") == 1
    assert desk.listing == before


@pytest.mark.parametrize(
    ("file", "old", "new", "code", "says"),
    [
        ("release.yaml", "release: ", "release: -", 2, "release.yaml: release:"),
        ("release.yaml", "grants:", "grant:", 2, "did you mean 'grants'"),
        ("release.yaml", "press.bundle", "other.bundle", 2, "agent 'press-guard': bundle models/other.bundle"),
        ("release.yaml", "shelf-watch", "press-guard", 2, "two agents are named 'press-guard'"),
        ("release.yaml", "local/shelf}\n    grants: [mqtt.publish]", "s}", 2, "'shelf-watch': press.yaml calls mqtt"),
        ("press.yaml", "prediction.label ==", "predicton.label ==", 2, "did you mean 'prediction.label'"),
        ("press.yaml", '"anomaly"', '"anomly"', 2, "label 'anomly'; models/press.bundle knows normal, anomaly"),
        ("models/press.bundle", "probabilities", "probabilitieZ", 3, "agent 'press-guard': models/press.bundle"),
    ],
)
def test_a_release_that_would_not_run_is_refused_before_the_hub_is_asked(
    provision: Run, nobody: str, desk: Desk, file: str, old: str, new: str, code: int, says: str
) -> None:
    """Were the hub asked, the line would say that it is away."""
    desk.edit(file, old, new)
    before = desk.listing
    said = provision(hub=nobody)
    assert (said.code, said.out) == (code, "")
    assert says in said.err
    assert said.err.count("\n") == 1
    assert desk.listing == before


def test_a_hub_that_is_away(provision: Run, nobody: str, desk: Desk) -> None:
    before = desk.listing
    said = provision(hub=nobody)
    assert (said.code, said.out) == (4, "")
    assert said.err.startswith(f"error: the hub at {nobody} does not answer: ")
    assert said.err.count("\n") == 1
    assert desk.listing == before


def test_a_token_the_hub_does_not_know(provision: Run, hub: Hub, desk: Desk) -> None:
    (desk.folder / "token").write_text("another")
    before, listing = hub.audit(), desk.listing
    assert provision() == Said(2, "", f"error: the hub at {hub.url} does not know this token\n")
    assert (hub.audit(), desk.listing) == (before, listing)


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (lambda made: {**made, "password": ""}, 3, "has no usable 'password': is it a newer hub?"),
        (lambda made: {**made, "local_password": None}, 3, "has no usable 'local_password'"),
        (lambda made: {k: v for k, v in made.items() if k != "username"}, 3, "has no usable 'username'"),
        (lambda made: {**made, "broker_url": "mqtt://mqtt.hub.example"}, 2, "use mqtts://"),
        (lambda made: {**made, "broker_url": "nonsense"}, 2, "broker 'nonsense'"),
        (lambda made: {**made, "site": "plant-99"}, 3, "is about another site"),
        (lambda made: list(made.values()), 3, "is no JSON object"),
        (lambda made: b"<html>nonsense-secret</html>", 4, "is this really a hub?"),
    ],
)
def test_an_answer_that_makes_no_kit(
    provision: Run,
    wrong_hub: HubThatAnswersWrongly,
    desk: Desk,
    spoil: Callable[[Any], object],
    code: int,
    says: str,
) -> None:
    wrong_hub.asked, wrong_hub.spoil = ("POST", "/api/v1/sites"), spoil
    before = desk.listing
    said = provision(hub=wrong_hub.url, broker=None)
    assert (said.code, said.out) == (code, "")
    assert says in said.err
    assert said.err.count("\n") == 1
    (true,) = wrong_hub.true
    for secret in (true["password"], true["local_password"], "secret"):
        assert secret not in said.err
    assert desk.listing == before
    assert provision("--replace").code == 0


@pytest.mark.parametrize(
    ("root", "says"),
    [
        (None, "the hub holds no trust metadata yet: run `edge-agent trust init` first"),
        ("{}", "trust root: "),
        ("<html>", "trust root: "),
        (7, "the hub holds no trust metadata yet"),
    ],
)
def test_a_hub_that_has_no_root_of_trust_registers_nobody(
    provision: Run, wrong_hub: HubThatAnswersWrongly, hub: Hub, desk: Desk, root: object, says: str
) -> None:
    wrong_hub.asked = ("GET", "/api/v1/trust")
    wrong_hub.spoil = lambda standing: standing | {"root": root}
    before, listing = hub.audit(), desk.listing
    said = provision("--unsigned", hub=wrong_hub.url, trust=None)
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert said.err.count("\n") == 1
    assert (hub.audit(), desk.listing) == (before, listing)


def test_a_root_that_the_operator_carries_counts_whatever_the_hub_says(
    provision: Run, wrong_hub: HubThatAnswersWrongly, hub: Hub, desk: Desk
) -> None:
    mine = Operator(desk.folder / "trust", "0a" * 32, "0b" * 32)
    wrong_hub.asked, wrong_hub.spoil = ("GET", "/api/v1/trust"), lambda _: {}
    assert provision("--unsigned", hub=wrong_hub.url, trust=None, root="trust/metadata/1.root.json").code == 0
    assert load_site(desk.folder / "kit" / "site.yaml").trust_root() == mine.root
    assert wrong_hub.true == [], "the hub was not asked for one"


@pytest.mark.parametrize(
    ("root", "says"),
    [
        ("nowhere.json", "--root nowhere.json: No such file"),
        ("token", "trust root: "),
        ("targets.json", "trust root: "),
        ("unsigned.json", "trust root: "),
    ],
)
def test_a_file_that_is_no_root_of_trust_registers_nobody(
    provision: Run, hub: Hub, desk: Desk, root: str, says: str
) -> None:
    metadata = hub.trust / "metadata"
    (desk.folder / "targets.json").write_bytes((metadata / "1.targets.json").read_bytes())
    unsigned = json.loads((metadata / "1.root.json").read_bytes()) | {"signatures": []}
    (desk.folder / "unsigned.json").write_text(json.dumps(unsigned))
    before, listing = hub.audit(), desk.listing
    said = provision(root=root)
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert said.err.count("\n") == 1
    assert (hub.audit(), desk.listing) == (before, listing)


def test_a_kit_has_the_newest_root_that_the_hub_holds(provision: Run, hub: Hub, desk: Desk) -> None:
    """Who provisions a site years after the first one may no longer have the key that signed the first root."""
    repository = Repository(hub.trust, lambda: datetime.now(UTC))
    repository.rotate("root", no_passphrase)
    files = {name: text.decode() for name, text in repository.files().items()}
    hub.client.request("PUT", "/api/v1/trust", json={"files": files})
    assert provision().code == 0
    root = load_site(desk.folder / "kit" / "site.yaml").trust_root()
    assert root == (hub.trust / "metadata" / "2.root.json").read_bytes()


def test_a_kit_that_cannot_be_made_after_all_says_how_to_go_on(
    provision: Run, wrong_hub: HubThatAnswersWrongly, desk: Desk
) -> None:
    wrong_hub.asked = ("POST", "/api/v1/sites")
    wrong_hub.spoil = lambda made: {**made, "broker_url": "mqtt://mqtt.hub.example"}
    said = provision(hub=wrong_hub.url, broker=None)
    assert said.err.endswith(f"; the hub has registered {desk.site}: use --replace the next time\n")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda held: {**held, "document": held["document"].replace('"name":', '"of_a_newer_kit":1,"name":')},
        lambda held: {**held, "artifacts": None},
        lambda held: [],
    ],
)
def test_a_release_at_the_hub_that_cannot_be_read_is_another_one(
    provision: Run, wrong_hub: HubThatAnswersWrongly, hub: Hub, desk: Desk, spoil: Callable[[Any], object]
) -> None:
    release, blobs = make_release(Path("release.yaml"))
    publish_release(release, lambda digest: blobs[Digest(digest)], hub.client)
    wrong_hub.asked, wrong_hub.spoil = ("GET", f"/api/v1/releases/{desk.release}"), spoil
    before, listing = hub.audit(), desk.listing
    said = provision(hub=wrong_hub.url)
    assert said.code == 3
    assert re.fullmatch(rf"error: the hub's release {desk.release} is another one: .*\n", said.err)
    assert (hub.audit(), desk.listing) == (before, listing)
