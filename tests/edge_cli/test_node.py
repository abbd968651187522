"""`edge-agent node` as people type it, against a hub that enrols: one kit, hundreds, checked, installed, retired."""

import base64
import csv
import io
import itertools
import json
import os
import re
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from operator_desk import Operator

from edge_agent.config import IDENTITY, load_site
from edge_agent.enrol.identity import KEY
from edge_agent.memory.checkpoint import KEY_FILE
from edge_cli.hub_client import HubClient, connect
from edge_cli.main import main
from edge_cli.node_join import join_by_hand
from edge_hub.broker.passwords import PasswordHash
from edge_hub.broker.process import free_port
from edge_k3s.kitenv import read_env
from edge_k3s.sealing import targets_keys

DEADLINE_S = 30.0

RELEASE = """\
release: {number}
agents:
  - name: press-guard
    where: {{kind: factory}}
    bundle: {bundle}
    policy: press.yaml
    source: {{kind: mqtt, endpoint: sensors, topic: local/press}}
    grants: [mqtt.publish]
"""

POLICY = """\
policy: press-guard
version: 1
abstain_below: 0.5
rules:
  - name: stop
    when: prediction.score > 0.9
    do: {tool: mqtt.publish, with: {endpoint: machines, topic: line/stop, payload: {why: =prediction.label}}}
"""

BUNDLE = Path(__file__).parents[2] / "models" / "edge_models" / "data" / "trace-2.bundle"

numbers = itertools.count(1)
"""Of sites: the hub is every test's, and a site at it is one test's."""


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S:.0f} s in vain for {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Hub:
    """A hub that runs and enrols."""

    folder: Path

    @property
    def client(self) -> HubClient:
        return connect(None, None, self.folder)

    @property
    def url(self) -> str:
        return str(json.loads((self.folder / "hub.json").read_bytes())["http"])

    @property
    def trust(self) -> Path:
        return self.folder.with_suffix(".trust")

    def audit(self) -> list[str]:
        with closing(sqlite3.connect(f"file:{self.folder / 'hub.db'}?mode=ro", uri=True)) as db:
            return [what for (what,) in db.execute("SELECT what FROM audit ORDER BY rowid")]


def start_hub(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "edge_cli.main", "hub", "serve", str(folder), "--http", "127.0.0.1:0", *words]
    with folder.with_suffix(".log").open("wb") as said:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=said)
    until(lambda: (folder / "hub.json").exists() or child.poll() is not None, "the hub to be ready")
    assert child.poll() is None, folder.with_suffix(".log").read_text()
    return child


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub") / "hub"
    mqtts, enrol = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    child = start_hub(folder, "--mqtts", mqtts, "--enrol", enrol, "--name", "127.0.0.1")
    try:
        made = Hub(folder)
        Operator.of_hub(made.trust, made.client.request)
        yield made
        child.terminate()
        assert child.wait(DEADLINE_S) == 0
        assert "Traceback" not in folder.with_suffix(".log").read_text()
    finally:
        child.kill()
        child.wait()


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def desk(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's current folder, with a release, a k3s and nothing else."""
    (tmp_path / "press.yaml").write_text(POLICY)
    (tmp_path / "release.yaml").write_text(RELEASE.format(number=1, bundle=BUNDLE))
    (tmp_path / "k3s").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(11) + b"\x3e\x00the rest of k3s")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_HUB", hub.url)
    monkeypatch.setenv("EDGE_HUB_TOKEN_FILE", str(hub.folder / "operator.token"))
    monkeypatch.setenv("EDGE_TRUST", str(hub.trust))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Type `edge-agent node …`, or of another group."""

    def typed(*words: str | Path, group: str = "node") -> Said:
        monkeypatch.setattr("sys.argv", ["edge-agent", group, *map(str, words)])
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return typed


@pytest.fixture
def site() -> str:
    return f"plant-{next(numbers):02}"


COMMON = ("--label", "kind=factory", "--release", "release.yaml", "--local-broker", "mqtt://192.0.2.10:1883")


def test_a_kit_is_made_and_found_well(run: Run, desk: Path, site: str, hub: Hub) -> None:
    """Done when this works."""
    made = run("provision", site, "--hub", hub.url, "--airgap", "--k3s", "k3s", *COMMON, "--out", "kit")
    assert made.code == 0, made.err
    assert "mind: k3s was held against no hash (--k3s-sha256); it has " in made.err
    assert "mind: no image is in this kit" in made.err
    checked = run("check", "kit", "--root", hub.trust / "metadata" / "1.root.json", "--json")
    found = json.loads(checked.out)
    assert (checked.code, found["ok"]) == (0, True), found
    said = [each["what"] for each in found["findings"]]
    assert any(what.startswith("signed by ") and what.endswith("a key of your root") for what in said)
    assert "every manifest is valid" in said
    facts = read_env(Path("kit/kit.env").read_text())
    assert (facts.site, facts.arch, facts.airgap, facts.release) == (site, "amd64", True, 1)
    assert facts.token_expires_s is not None
    assert abs(facts.token_expires_s - time.time() - 7 * 86_400) < 600
    assert Path("kit/root.json").read_bytes() == (hub.trust / "metadata" / "1.root.json").read_bytes()


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["site:1", "rancher/mirrored-pause:3.6"], []),
        (["docker.io/library/site:1"], ["what k3s itself runs (rancher/…)"]),
        (["other:1", "rancher/mirrored-pause:3.6"], ["site:1"]),
    ],
)
def test_a_kit_that_lacks_an_image_is_told_of(
    run: Run, desk: Path, site: str, names: list[str], missing: list[str]
) -> None:
    data = json.dumps([{"RepoTags": names}]).encode()
    with tarfile.open("images.tar", "w") as tar:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    words = ("--airgap", "--k3s", "k3s", "--image", "site:1", "--image-tar", "images.tar", *COMMON)
    made = run("provision", site, *words, "--out", "kit")
    assert made.code == 0, made.err
    told = [line for line in made.err.splitlines() if "no tarball in this kit holds" in line]
    assert told == [f"mind: no tarball in this kit holds {each}: without a network it never starts" for each in missing]


def test_the_site_of_a_kit_joins_with_its_token_once(run: Run, desk: Path, site: str, hub: Hub) -> None:
    assert run("provision", site, *COMMON, "--join-days", "2", "--out", "kit").code == 0
    config = load_site(Path("kit/site.yaml")).config
    assert config.hub is not None
    assert (config.hub.username, config.hub.password_file) == (None, None)
    assert not Path("kit/secrets/hub.password").exists()
    _, new = join_by_hand(load_site(Path("kit/site.yaml")))
    assert new
    assert (Path("kit/data/identity/certificate.pem")).is_file()
    # A copy of the kit on another machine gets nothing any more.
    second = desk / "copy"
    second.mkdir()
    for name in ("site.yaml", "root.json"):
        (second / name).write_bytes(Path("kit", name).read_bytes())
    (second / "secrets").mkdir()
    (second / "secrets" / "join.token").write_bytes(Path("kit/secrets/join.token").read_bytes())
    said = run("join", second / "site.yaml")
    assert said.code != 0
    assert said.err.count("\n") == 1


def test_a_replaced_site_has_a_new_token_and_the_old_one_ends(run: Run, desk: Path, site: str) -> None:
    assert run("provision", site, *COMMON, "--out", "kit").code == 0
    again = run("provision", site, *COMMON, "--out", "kit-2")
    assert (again.code, again.out) == (3, "")
    assert f"{site} is provisioned already: --replace" in again.err
    assert not Path("kit-2").exists()
    assert run("provision", site, *COMMON, "--replace", "--out", "kit-2").code == 0
    assert run("join", "kit/site.yaml").code != 0
    assert run("join", "kit-2/site.yaml").code == 0


def test_without_a_release_the_site_waits_for_one(run: Run, desk: Path, site: str) -> None:
    made = run("provision", site, "--label", "kind=factory", "--out", "kit")
    assert (made.code, "mind: no release: the site waits for the one that its hub sends\n" in made.err) == (0, True)
    assert (load_site(Path("kit/site.yaml")).config.agents, not list(Path("kit").glob("release/*"))) == ([], True)
    assert run("check", "kit").code == 0


# --- who signs ---


def test_where_nobody_has_keys_yet_they_are_made_and_it_is_said_where(
    run: Run, desk: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("fresh") / "hub"
    child = start_hub(folder)
    try:
        monkeypatch.delenv("EDGE_TRUST")
        new = ("provision", "plant-01", "--hub", Hub(folder).url, "--token-file", folder / "operator.token", *COMMON)
        asked = run(*new, "--out", "kit")
        assert (asked.code, "a passphrase is needed" in asked.err, "--no-passphrase" in asked.err) == (2, True, True)
        assert Hub(folder).client.request("GET", "/api/v1/sites")["sites"] == []
        assert not Path("kit").exists()
        made = run(*new, "--no-passphrase", "--out", "kit")
        assert made.code == 0, made.err
        place = desk / "home" / ".config" / "edge-agent" / "trust"
        assert f"the operator's keys are made: {place}." in made.err
        assert "join.token" not in [path.name for path in Path("kit/secrets").iterdir()], "this hub enrols nobody"
        root = (place / "metadata" / "1.root.json").read_bytes()
        assert Hub(folder).client.request("GET", "/api/v1/trust")["root"].encode() == root
        assert run("check", "kit", "--root", place / "metadata" / "1.root.json").code == 0
        # The next kit is signed with the same keys, and nobody is asked again.
        second = ("provision", "plant-02", *new[2:])
        assert run(*second, "--out", "kit-2").code == 0
        assert Path("kit-2/signing-key.pem").read_bytes() == Path("kit/signing-key.pem").read_bytes()
    finally:
        child.terminate()
        assert child.wait(DEADLINE_S) == 0


def test_another_operators_folder_is_needed(
    run: Run, desk: Path, site: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGE_TRUST")
    before = hub.audit()
    said = run("provision", site, *COMMON, "--out", "kit")
    assert said.code == 2
    assert "is no operator's folder: name it with --trust DIR (or --unsigned" in said.err
    assert (hub.audit(), Path("kit").exists(), Path("home").exists()) == (before, False, False)
    assert run("provision", site, *COMMON, "--unsigned", "--out", "kit").code == 0
    assert not Path("kit/SHA256SUMS.sig").exists()
    assert "it is not signed" in run("check", "kit").out


def test_the_key_that_signs_is_the_operators(run: Run, desk: Path, site: str, hub: Hub) -> None:
    assert run("provision", site, *COMMON, "--out", "kit").code == 0
    said = json.loads(run("check", "kit", "--json").out)["findings"]
    (key,) = targets_keys((hub.trust / "metadata" / "1.root.json").read_bytes())
    assert any(key in each["what"] for each in said)


def test_a_site_may_have_a_broker_of_its_own_for_its_sensors(run: Run, desk: Path, site: str) -> None:
    words = ("--label", "kind=factory", "--release", "release.yaml", "--sensors-image", "eclipse-mosquitto:2.0.22")
    alone = run("provision", site, *words, "--out", "kit")
    assert (alone.code, "Give --sensor-network CIDR" in alone.err) == (2, True)
    made = run("provision", site, *words, "--sensor-network", "192.0.2.0/24", "--gpus", "1", "--out", "kit")
    assert made.code == 0, made.err
    assert "sensors" not in made.err
    secrets, broker = (
        Path("kit/manifests/05-secrets.yaml").read_text(),
        Path("kit/manifests/15-sensors.yaml").read_text(),
    )
    (users,) = (each for each in yaml.safe_load_all(secrets) if each["metadata"]["name"] == "sensors-users")
    name, _, text = base64.b64decode(users["data"]["passwd"]).decode().strip().partition(":")
    assert name == f"_local_{site}"
    assert PasswordHash.from_text(text).matches(Path("kit/secrets/local.password").read_text())
    assert "eclipse-mosquitto:2.0.22" in broker
    assert "192.0.2.0/24" in broker
    assert "runtimeClassName: nvidia" in Path("kit/manifests/10-site.yaml").read_text()
    assert run("check", "kit").code == 0


# --- hundreds ---


def table(*rows: str) -> None:
    Path("sites.csv").write_text("\n".join(rows) + "\n")


def test_a_table_of_sites_becomes_a_folder_of_kits(run: Run, desk: Path, site: str, hub: Hub) -> None:
    names = [f"{site}-{n:03}" for n in range(30)]
    table("site,kind", *(f"{name},{'factory' if n % 2 else 'shop'}" for n, name in enumerate(names)))
    before = len(hub.audit())
    made = run("provision", "--from", "sites.csv", *COMMON[2:], "--airgap", "--k3s", "k3s", "--out", "kits")
    assert made.code == 0, made.err
    assert made.out == "kits: 30 kits, release 1\n"
    assert "runs at a site with these labels (15 of 30 sites)" in made.err
    assert sorted(path.name for path in Path("kits").iterdir()) == [*names, "summary.csv"]
    assert hub.audit()[before:].count("site registered") == 30
    rows = list(csv.DictReader(Path("kits/summary.csv").read_text().splitlines()))
    assert [row["site"] for row in rows] == names
    text = Path("kits/summary.csv").read_text()
    for name, row in zip(names, rows, strict=True):
        kit = Path("kits") / name
        assert subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=kit, check=False).returncode == 0
        sums = subprocess.run(["sha256sum", kit / "SHA256SUMS"], capture_output=True, text=True, check=True).stdout
        assert row["sums_sha256"] == sums.split()[0]
        assert not [path for path in (kit / "secrets").iterdir() if path.read_text() in text]
    tokens = {(Path("kits") / name / "secrets" / "join.token").read_text() for name in names}
    assert len(tokens) == 30
    # What they share lies on the disk once.
    assert os.stat(Path("kits") / names[0] / "airgap" / "k3s").st_nlink == 30
    assert run("check", Path("kits") / names[1]).code == 0
    assert run("join", Path("kits") / names[1] / "site.yaml").code == 0


def test_the_list_can_be_json_and_lie_elsewhere(run: Run, desk: Path, site: str) -> None:
    table("site,kind", f"{site}-a,factory", f"{site}-b,factory")
    made = run("provision", "--from", "sites.csv", *COMMON[2:], "--summary", "list.json", "--json", "--out", "kits")
    assert made.code == 0, made.err
    listed = json.loads(Path("list.json").read_text())
    assert [each["site"] for each in listed] == [f"{site}-a", f"{site}-b"]
    assert json.loads(made.out) == {"kits": listed}
    assert sorted(path.name for path in Path("kits").iterdir()) == [f"{site}-a", f"{site}-b"]


@pytest.mark.parametrize(
    ("rows", "words", "code", "says"),
    [
        (["site,kind", "x-1,factory", "X-2,factory"], [], 2, "sites.csv line 3: site 'X-2'"),
        (["site,kind", "x-1,factory", "x-1,shop"], [], 2, "sites.csv line 3: site x-1 stands twice"),
        (["site,knid", "x-1,factory"], [], 2, "label key 'knid' is new: did you mean 'kind'?"),
        (["site,kind", "x-1,factory"], ["--label", "kind=shop"], 2, "label kind is given by --label and"),
        (["site,kind", "x-1,factory"], ["plant-09"], 2, "either one site, or a table"),
        (["site,kind", "x-1,factory"], ["--summary", "list.txt"], 2, "name it .csv or .json"),
        (["site,kind", "x-1,factory"], ["--summary", "release.yaml"], 2, "name it .csv or .json"),
        (["site,kind", "x-1,factory", "known-1,shop"], [], 3, "known-1 is provisioned already: --replace"),
    ],
)
def test_a_table_with_a_mistake_makes_no_kit_and_no_site(
    run: Run, desk: Path, hub: Hub, rows: list[str], words: list[str], code: int, says: str
) -> None:
    if "known-1,shop" in rows:
        assert run("provision", "known-1", *COMMON, "--out", "known").code == 0
    else:  # so that label keys are known
        run("provision", "known-0", *COMMON, "--replace", "--out", "known")
    table(*rows)
    before, listing = hub.audit(), sorted(desk.rglob("*"))
    said = run("provision", *words, "--from", "sites.csv", "--release", "release.yaml", "--out", "kits")
    assert (said.code, said.out) == (code, "")
    assert says.replace("label kind", "label 'kind'") in said.err
    assert said.err.count("\n") == 1
    assert (hub.audit(), sorted(desk.rglob("*"))) == (before, listing)


def test_a_new_label_key_is_allowed_by_name(run: Run, desk: Path, site: str) -> None:
    assert run("provision", site, *COMMON, "--out", "kit").code == 0
    new = ("provision", f"{site}-b", *COMMON, "--label", f"hall-{site}=7", "--out", "kit-2")
    refused = run(*new)
    assert (refused.code, f"(--label-key hall-{site} allows it)" in refused.err) == (2, True)
    assert run(*new, "--label-key", f"hall-{site}").code == 0
    assert run("provision", f"{site}-c", *COMMON, "--label", f"hall-{site}=8", "--out", "kit-3").code == 0


def test_kits_that_cannot_be_written_register_nobody(run: Run, desk: Path, site: str, hub: Hub) -> None:
    before = hub.audit()
    table("site,kind", f"{site}-a,factory", f"{site}-b,factory")
    Path("kits").write_text("in the way")
    said = run("provision", "--from", "sites.csv", *COMMON[2:], "--out", "kits/here")
    assert (said.code, said.err) == (2, "error: kit kits/here: kits is no folder\n")
    assert (hub.audit(), Path("kits").read_text()) == (before, "in the way")


# --- what an operator gives ---


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--airgap"], "--airgap: the kit has to bring k3s: name its binary with --k3s FILE"),
        (["--k3s", "nowhere"], "--k3s nowhere: No such file"),
        (["--k3s", "k3s", "--k3s-sha256", "0" * 64], "not 0000"),
        (["--k3s", "press.yaml"], "is no program for Linux"),
        (["--k3s-sha256", "0" * 64], "go with --k3s FILE"),
        (["--k3s", "k3s", "--k3s-version", "stable"], "write it whole, as in v1.35.2+k3s1"),
        (["--k3s", "k3s", "--k3s-version", "v1.30.1+k3s1"], "kits need v1.32 or newer"),
        (["--k3s", "k3s", "--k3s-install", "press.yaml"], "is no script"),
        (["--image-tar", "press.yaml"], "k3s imports .tar, .tar.gz, .tar.zst"),
        (["--enrol", "http://hub.example"], "write https://HOST:8443"),
        (["--unsigned", "--trust", "x"], "not both"),
        (["--restart", "sunday night"], "time 'sunday night': write it as in 'Sun 03:00'"),
    ],
)
def test_a_wrong_file_or_option_is_one_line(
    run: Run, desk: Path, site: str, hub: Hub, words: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "--unsigned" not in words:
        words = ["--trust", str(hub.trust), *words]
    monkeypatch.delenv("EDGE_TRUST")
    before, listing = hub.audit(), sorted(desk.rglob("*"))
    said = run("provision", site, *COMMON, *words, "--out", "kit")
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    errors = [line for line in said.err.splitlines() if not line.startswith("mind: ")]
    assert len(errors) == 1
    assert sorted(desk.rglob("*")) == listing
    assert hub.audit() == before


# --- at the node ---


@pytest.fixture
def kit(run: Run, desk: Path, site: str) -> Path:
    assert run("provision", site, *COMMON, "--k3s", "k3s", "--k3s-version", "v1.35.2+k3s1", "--out", "kit").code == 0
    return desk / "kit"


def test_install_checks_and_then_does_what_install_sh_does(run: Run, kit: Path, site: str) -> None:
    root = kit.parent / "machine"
    (root / "var" / "lib").mkdir(parents=True)
    dry = run("install", kit, "--root", root, "--dry-run")
    assert (dry.code, "would write /usr/local/bin/k3s" in dry.out) == (0, True)
    assert not (root / "usr").exists()
    done = run("install", kit, "--root", root, "--json")
    assert (done.code, json.loads(done.out)["code"]) == (0, 0)
    assert (root / "usr/local/bin/k3s").read_bytes() == (kit / "airgap" / "k3s").read_bytes()
    assert f"SITE={site}\n" in (root / "etc/edge-agent/kit.env").read_text()


def test_install_refuses_a_kit_that_was_changed(run: Run, kit: Path) -> None:
    root = kit.parent / "machine"
    root.mkdir()
    (kit / "site.yaml").write_text("site: plant-66\n")
    said = run("install", kit, "--root", root)
    assert (said.code, said.out, list(root.iterdir())) == (3, "", [])
    assert "site.yaml was changed" in said.err
    assert said.err.count("\n") == 1


def test_install_names_the_option_that_was_given(run: Run, kit: Path) -> None:
    said = run("install", kit, "--trust-root", "nofile", "--dry-run", "--root", kit.parent)
    assert (said.code, said.out) == (2, "")
    assert "--trust-root nofile: " in said.err


@pytest.mark.parametrize("root", ["", "/", "/proc/self/root", "nowhere"])
def test_install_never_takes_this_machine_for_an_image(run: Run, kit: Path, root: str) -> None:
    said = run("install", kit, "--root", root, "--dry-run")
    assert (said.code, said.out) == (2, "")
    assert "wants a folder that is there and is not /" in said.err


def test_install_sh_asks_the_kits_own_program_where_it_is_there(run: Run, kit: Path) -> None:
    """A site file that the site would refuse: the sums agree, nothing is signed, and only the program can tell."""
    root, tools = kit.parent / "machine", kit.parent / "tools"
    (root / "var" / "lib").mkdir(parents=True)
    tools.mkdir()
    (tools / "edge-agent").write_text(f'#!/bin/sh\nexec {sys.executable} -m edge_cli.main "$@"\n')
    (tools / "edge-agent").chmod(0o755)
    for name in ("SHA256SUMS.sig", "signing-key.pem"):
        (kit / name).unlink()
    (kit / "site.yaml").write_text("site: plant-66\n")
    names = [line[66:] for line in (kit / "SHA256SUMS").read_text().splitlines() if "signing-key" not in line]
    sums = subprocess.run(["sha256sum", *names], cwd=kit, capture_output=True, text=True, check=True).stdout
    (kit / "SHA256SUMS").write_text(sums)
    words = ["sh", str(kit / "install.sh"), "--root", str(root)]
    path = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    said = subprocess.run(words, capture_output=True, text=True, check=False, env=path)
    assert said.returncode == 3
    errors = [line for line in said.stderr.splitlines() if not line.startswith("mind: ")]
    assert len(errors) == 1, said.stderr
    assert errors[0].startswith("error: edge-agent node check refuses this kit: ")
    assert "site.yaml" in errors[0], "what is wrong is not said"
    assert said.stdout == ""
    assert not (root / "etc").exists()


def test_check_says_what_is_wrong_with_an_exit_code(run: Run, kit: Path, tmp_path: Path) -> None:
    (kit / "kit.env").write_text("")
    said = run("check", kit)
    assert (said.code, "✗ kit.env was changed" in said.out) == (1, True)
    nothing = run("check", tmp_path / "nowhere")
    assert (nothing.code, nothing.err.count("\n")) == (2, 1)
    assert run("check", kit, "--root", "nowhere").code == 2


def test_an_upgrade_is_planned_from_what_the_kit_brought(run: Run, kit: Path) -> None:
    words = ("--window", "sun 02:00-05:00", "--time-zone", "Europe/Berlin", "--out", "30-k3s-upgrade.yaml")
    assert run("upgrade", "v1.36.1+k3s1", "--kit", kit, *words, "--json").code == 0
    assert "timeZone: Europe/Berlin" in Path("30-k3s-upgrade.yaml").read_text()
    again = run("upgrade", "v1.36.1+k3s1", "--kit", kit, *words)
    assert (again.code, "is there already" in again.err) == (2, True)
    for wrong in (
        ("v1.37.1+k3s1", "--kit", kit, *words[:-1], "new.yaml"),
        ("v1.36.1+k3s1", *words[:-1], "new.yaml"),
        ("v1.36.1+k3s1", "--kit", "nowhere", *words[:-1], "new.yaml"),
        ("v1.36.1+k3s1", "--kit", kit, "--window", "sun", "--out", "new.yaml"),
        ("v1.36.1+k3s1", "--kit", kit, *words[:2], "--time-zone", "Mars/Base", "--out", "new.yaml"),
    ):
        said = run("upgrade", *wrong)
        assert (said.code, said.err.count("\n"), Path("new.yaml").exists()) == (2, 1, False)


def test_a_retired_site_is_let_in_no_more_and_its_kit_holds_no_secret(run: Run, kit: Path, site: str, hub: Hub) -> None:
    token = (kit / "secrets" / "join.token").read_text()
    copy = kit.parent / "join.token"
    copy.write_text(token)
    other = run("retire", "plant-66", "--kit", kit)
    assert (other.code, "is not the kit of plant-66" in other.err) == (2, True)
    assert run("join", kit / "site.yaml").code == 0  # as a site that is run from its kit does
    keys = {f"data/{IDENTITY}/{KEY}", f"data/{KEY_FILE}"}
    assert all((kit / each).is_file() for each in keys)
    done = run("retire", site, "--kit", kit, "--json")
    assert done.code == 0, done.err
    assert set(json.loads(done.out)["wiped"][str(kit)]) >= {"secrets/join.token", "manifests/05-secrets.yaml", *keys}
    assert not list((kit / "secrets").iterdir())
    assert not [each for each in keys if (kit / each).exists()]
    assert run("join", kit / "site.yaml", "--token", copy).code != 0
    assert hub.client.request("GET", f"/api/v1/sites/{site}")["revoked_us"] is not None


def test_a_site_that_nobody_knows_is_one_refusal_whoever_is_asked(run: Run, desk: Path, hub: Hub) -> None:
    word = "error: the hub refused: no site 'plant-never' is registered at this hub\n"
    assert (run("retire", "plant-never").code, run("retire", "plant-never").err) == (3, word)
    said = run("revoke", "plant-never", "--yes", group="fleet")
    assert (said.code, said.out, said.err) == (3, "", word)
    Path("release.yaml").write_text(RELEASE.format(number=90, bundle=BUNDLE))
    made = run("create", "release.yaml", "--trust", hub.trust, "--out", "release-90", group="release")
    assert made.code == 0, made.err
    said = run("push", "release-90", "--to", "plant-never", group="release")
    assert (said.code, said.out, said.err) == (3, "", word)


def test_the_hub_says_what_has_become_of_a_token(
    run: Run, kit: Path, site: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGE_HUB")
    offline = run("check", kit).out
    assert re.search(r"✓ the join token is good for [67] days, by its date\n", offline)
    assert "this machine" not in offline, "it is the operator's"
    assert "by its date" in run("check", kit, "--ask-hub").out, "nothing says where its API is"
    asked = ("--ask-hub", "--hub-dir", hub.folder)
    assert re.search(r"✓ the join token is good for [67] days, says the hub\n", run("check", kit, *asked).out)
    assert (run("check", kit, *asked[1:]).code, run("check", kit, "--ask-hub", "--hub-dir", kit).code) == (2, 2)
    assert run("join", kit / "site.yaml").code == 0
    spent = run("check", kit, *asked)
    assert (spent.code, "! the join token is spent: a machine has joined with it" in spent.out) == (0, True)
    hub.client.request("POST", f"/api/v1/sites/{site}/revoke", json={})
    void = run("check", kit, *asked)
    assert (void.code, "✗ the join token is void, says the hub" in void.out) == (1, True)
    assert (
        run("provision", site, *COMMON, "--hub", hub.url, "--replace", "--join-days", "2", "--out", "kit-2").code == 0
    )
    older = run("check", kit, *asked)
    assert (older.code, "✗ the hub has made a newer join token" in older.out) == (1, True)
    assert run("check", "kit-2", *asked).code == 0


def test_the_hub_can_be_asked_whether_it_is_the_one(
    run: Run, kit: Path, site: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    well = run("check", kit, "--ask-hub")
    assert (well.code, "the hub answers, and is the one that the token names" in well.out) == (0, True)
    folder = tmp_path_factory.mktemp("another") / "hub"
    place = f"127.0.0.1:{free_port()}"
    child = start_hub(folder, "--mqtts", f"127.0.0.1:{free_port()}", "--enrol", place, "--name", "127.0.0.1")
    try:
        new = (*COMMON, "--replace", "--enrol", f"https://{place}", "--out", "kit-2")
        assert run("provision", site, *new).code == 0
        said = run("check", "kit-2", "--ask-hub")
    finally:
        child.terminate()
        assert child.wait(DEADLINE_S) == 0
    assert (said.code, "it is another hub" in said.out) == (1, True)
    away = run("check", "kit-2", "--ask-hub")
    assert (away.code, place in away.out) == (0, True)
