"""docs/operations.md, line by line, as an operator types it: only the folders are other ones."""

import json
import re
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent.config import load_site
from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import Journal
from edge_hub.broker.process import free_port
from edge_models.errors import ConfigError
from edge_sync.batch import encode
from edge_sync.keep import DAY_US
from edge_sync.rows import Row, chain, chain_start, row_bytes

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations.md"
EPOCH = "00000000000000aa"


def lines(heading: str) -> list[str]:
    """The indented lines below a heading."""
    [section] = [part for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE) if part.startswith(heading)]
    return [line[4:] for line in section.splitlines() if line.startswith("    ")]


@pytest.fixture
def hub(tmp_path: Path, new_hub: Any) -> Any:
    return new_hub(tmp_path / "HUB").start()


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Runs a line in the folder of the test."""
    (tmp_path / "BACKUPS").mkdir()

    def run_line(line: str, code: int = 0) -> str:
        program, *words = shlex.split(line)
        assert program == "edge-agent"
        command = [sys.executable, "-m", "edge_cli.main", *words]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    return run_line


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """Those of the checkout, with a free port in place of theirs."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for file in (tmp_path / "examples").glob("release-*.yaml"):
        file.write_text(file.read_text().replace("8090", str(port)))
    return tmp_path / "examples"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Runs the site of the kit, until the test ends."""
    children: list[subprocess.Popen[bytes]] = []

    def run_kit() -> None:
        with (tmp_path / "site.log").open("ab") as log:
            command = [sys.executable, "-m", "edge_cli.main", "run", str(tmp_path / "KIT" / "site.yaml")]
            children.append(subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL))

    yield run_kit
    for child in children:
        child.terminate()
        assert child.wait(30) == 0, (tmp_path / "site.log").read_text()


def test_sign_and_bring_a_release_and_without_a_network(
    hub: Any, run: Callable[..., str], examples: Path, start: Callable[[], None], until: Any, tmp_path: Path
) -> None:
    init, trust_status = lines("Sign what may run")
    create, push, status, hold, unhold, rollback = lines("Bring a release to sites")
    export, take = lines("Without a network")
    provision = (
        f"edge-agent node provision plant-01 --hub {hub.facts['http']} --token-file HUB/operator.token "
        f"--trust TRUST --label kind=factory --release {examples / 'release-1.yaml'} --out KIT --api-port 0"
    )
    assert "a passphrase is needed" in run(provision, code=2)  # for keys that nobody made yet
    assert "2 of 3" in run(init) + run(trust_status)
    run(provision)
    start()
    until((tmp_path / "KIT" / "data" / "api.port").exists, "the site to be up")

    def runs() -> Any:
        return json.loads(run(f"{status} --json"))["release"]

    run(create)
    assert "plant-01: release 2" in run(push)
    until(lambda: runs() == 2, "release 2")
    assert "for 1 sites" in run(export)
    assert "it runs release 2" in run(take)
    assert "stocktaking" not in run(status)
    run(hold)
    assert "stocktaking" in run(status)
    run(unhold)
    until(lambda: "stocktaking" not in run(status), "the hold to end")
    assert "goes back" in run(rollback)
    assert "labels the wrong shelf" in run(status)
    until(lambda: hub.api("GET", "/api/v1/sites/plant-01")["state"] == "rolled_back", "the hub to hear of it")
    assert runs() == 1


def test_let_sites_on_other_machines_in(new_hub: Any, run: Callable[..., str], tmp_path: Path) -> None:
    options = ("--mqtts", f"127.0.0.1:{free_port()}", "--enrol", f"127.0.0.1:{free_port()}", "--name", "localhost")
    hub = new_hub(tmp_path / "HUB", *options).start()
    make, tokens, void, revoke = lines("Let sites on other machines in")
    run(make)
    token = tmp_path / "shops.token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.read_text().startswith("EK1")
    assert "_group-shops" in run(tokens)
    run(void)
    assert "void" in run(tokens)
    run(revoke, code=3)
    hub.api("POST", "/api/v1/sites", {"site": "plant-07", "join": True})
    assert "plant-07" in run(revoke)
    assert hub.api("GET", "/api/v1/sites/plant-07")["revoked_us"]
    assert hub.stop() == 0
    again = new_hub(tmp_path / "HUB", *options[:2]).start()
    assert "without --enrol nobody renews the list" in again.log()
    again.stop()
    alone = new_hub(tmp_path / "HUB").start()
    assert "without --mqtts and --enrol none of them is let in" in alone.log()
    alone.stop()
    moved = new_hub(tmp_path / "HUB", *options[:-1], "hub.example.com").start()
    assert "--name localhost is left out now: sites that know this hub by it find it no more" in moved.log()


def test_back_up_and_restore(hub: Any, run: Callable[..., str], tmp_path: Path) -> None:
    [back_up], [restore] = lines("Back up a hub"), lines("Restore it")
    assert "pg_dump" in run(f"{back_up}-rest --database postgresql://edge@db/hub")
    assert not (tmp_path / "BACKUPS" / "monday-rest" / "hub.db").exists()
    run(back_up)
    assert "exists already" in run(back_up, code=2)
    assert "stop it first" in run(restore, code=2)
    assert hub.stop() == 0
    assert "is not empty" in run(restore.removesuffix(" --replace"), code=2)
    assert "sites send again what it lacks" in run(restore)
    data = tmp_path / "BACKUPS" / "monday" / "hub.db"
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    assert "hub.db is not what manifest.json says" in run(restore, code=3)
    hub.start()
    assert hub.api("GET", "/api/v1/sites") == {"sites": []}


def test_keep(hub: Any, run: Callable[..., str], tmp_path: Path) -> None:
    page = lines("Keep records")
    commands = [line for line in page if line.startswith("edge-agent")]
    said = [run(line) for line in commands]
    assert re.search(r"observation +\* +90", said[2])
    assert re.search(r"decision +watch +3650", said[2])
    assert hub.api("GET", "/api/v1/keep")["keep"] == [{"kind": "decision", "agent": "watch", "days": 3650}]
    assert "there is no rule" in run(commands[3], code=1)
    assert "kind 'picture': there are" in run("edge-agent fleet keep --kind picture --days 9 --hub-dir HUB", code=2)
    assert "days 0: wanted 1 to" in run("edge-agent fleet keep --days 0 --hub-dir HUB", code=2)
    assert "how long?" in run("edge-agent fleet keep --kind observation --hub-dir HUB", code=2)

    site_file = tmp_path / "site.yaml"
    site_file.write_text("site: plant-01\n" + "\n".join(line for line in page if line not in commands) + "\n")
    keep = load_site(site_file).keep()
    assert (keep.age_us("observation", "watch"), keep.age_us("event", "watch")) == (7 * DAY_US, None)


@pytest.mark.parametrize(
    ("keep", "why"),
    [
        ([{"kind": "picture", "days": 7}], "keep.0.kind"),
        ([{"kind": "event", "days": 0}], "keep.0.days"),
        ([{"kind": "event"}], "keep.0.days"),
        ([{"kind": "event", "days": 7}, {"kind": "event", "agent": "*", "days": 8}], "two lines are for kind 'event'"),
    ],
)
def test_a_site_file_that_keeps_nonsense_is_refused(tmp_path: Path, keep: Any, why: str) -> None:
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({"site": "plant-01", "keep": keep}))
    with pytest.raises(ConfigError, match=re.escape(why)):
        load_site(tmp_path / "site.yaml")


def test_erase(hub: Any, run: Callable[..., str], connect_site: Any, until: Any, tmp_path: Path) -> None:
    at_site, at_hub = lines("Erase a subject")
    (tmp_path / "site.yaml").write_text("site: plant-01\n")
    assert "no such memory" in run(at_site, code=2)
    journal = Journal(tmp_path / "data" / "memory.db", 64, lambda: 1)
    journal.write([Draft("telemetry", "observation", "watch", 1, "{}", subject="press-7")])
    journal.close()
    assert "1 records" in run(at_site)
    assert "nothing found" in run(at_site, code=1)

    played = connect_site(hub, "plant-01")
    raw = row_bytes(Row(1, 1, "observation", "watch", "press-7", None, None, None, "{}"))
    start = chain_start(EPOCH, "telemetry")
    played.say("journal", encode(EPOCH, "telemetry", [raw], [], (1, 1), (start, chain(start, raw))))
    played.told("ack")
    assert "Aborted" in run(at_hub.replace(" --yes", ""), code=1)
    assert "1 records" in run(at_hub)
    assert "nothing found" in run(at_hub, code=1)
    for file in (tmp_path / "HUB").glob("hub.db*"):
        assert b"press-7" not in file.read_bytes()
    with closing(sqlite3.connect(f"file:{hub.folder / 'hub.db'}?mode=ro", uri=True)) as db:
        assert db.execute("SELECT reason FROM gaps").fetchall() == [("erased",)]
        assert "press-7" not in str(db.execute("SELECT * FROM audit").fetchall())
