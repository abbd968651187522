"""`edge-agent trust`, without a hub and with a small one that keeps what it is handed."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
from securesystemslib.signer import CryptoSigner
from typer.testing import CliRunner, Result

from edge_cli import repository
from edge_cli.hub_client import HubClient, HubRefusal
from edge_cli.repository import hand_over, open_repository, passphrases
from edge_cli.trust import app
from edge_models.errors import ConfigError
from edge_sync.trust.repository import Target

ONLINE, DIRECTOR, NEXT = (CryptoSigner.generate_ed25519().public_key.keyval["public"] for _ in range(3))
KEYS = ("--online-key", ONLINE, "--director-key", DIRECTOR)


@pytest.fixture(autouse=True)
def nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGE_TRUST_PASSPHRASE", "EDGE_HUB", "EDGE_HUB_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


def shown(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shown(run("init", "--out", tmp_path / "trust", *KEYS, "--no-passphrase", "--json"))
    return tmp_path / "trust"


class SmallHub:
    """Answers GET and PUT /api/v1/trust as a hub does."""

    def __init__(self) -> None:
        self.url, self.files, self.status = "", dict[str, str](), 200

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path != "/api/v1/trust":
            return 404, {"error": "no such page"}
        if method == "GET":
            return 200, {"online_key": ONLINE, "director_key": DIRECTOR, "versions": {}}
        if self.status != 200:
            return self.status, {"error": "models: version 1 is older than 2"}
        self.files = json.loads(body)["files"]
        return 200, {"versions": {name.split(".")[1]: int(name.split(".")[0]) for name in sorted(self.files)}}


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    state = SmallHub()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            status, value = state.answer(self.command, self.path, body)
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = handle_any

        def log_message(self, format: str, *args: object) -> None:
            """A test's output is the test's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        state.url = f"http://127.0.0.1:{listening.server_port}"
        yield state
        listening.shutdown()
        thread.join()


@pytest.fixture
def hub_options(hub: SmallHub, tmp_path: Path) -> list[str]:
    (tmp_path / "token").write_text("t")
    return ["--hub", hub.url, "--token-file", str(tmp_path / "token")]


def test_init_without_a_hub_says_where_keys_lie_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("correct horse\n")
    done = run("init", "--out", tmp_path / "trust", *KEYS, "--passphrase-file", tmp_path / "secret")
    assert done.exit_code == 0, done.output
    assert all(f"encfile:keys/{name}-1.pem" in done.stdout for name in ("root", "targets", "models"))
    assert "2 of 3" in done.stdout
    assert "keep root-2.pem and root-3.pem elsewhere" in done.stderr
    assert f"{tmp_path / 'trust' / 'metadata' / '1.root.json'}" in done.stderr
    assert f"edge-agent trust push {tmp_path / 'trust'}" in done.stderr
    assert "correct horse" not in done.output


def test_init_asks_the_hub_for_its_keys_and_hands_over(hub: SmallHub, hub_options: list[str], tmp_path: Path) -> None:
    made = shown(run("init", "--out", tmp_path / "trust", "--no-passphrase", *hub_options, "--json"))
    assert (made["online_key"], made["director_key"]) == (ONLINE, DIRECTOR)
    assert made["versions"] == {"root": 1, "targets": 1, "models": 1, "policies": 1, "agents": 1}
    files = open_repository(tmp_path / "trust").files()
    assert {name: text.encode() for name, text in hub.files.items()} == files


def test_what_init_made_stays_where_the_hub_refuses_it(hub: SmallHub, hub_options: list[str], tmp_path: Path) -> None:
    hub.status = 409
    done = run("init", "--out", tmp_path / "trust", "--no-passphrase", *hub_options)
    assert isinstance(done.exception, HubRefusal)
    assert f"edge-agent trust push {tmp_path / 'trust'}" in done.stderr
    hub.status = 200
    assert shown(run("push", tmp_path / "trust", *hub_options, "--json"))["versions"]["root"] == 1


def test_push_hands_over_every_root_and_the_newest_of_the_others(
    hub: SmallHub, hub_options: list[str], folder: Path
) -> None:
    shown(run("rotate", folder, "root", "--no-passphrase", "--json"))
    shown(run("rotate", folder, "models", "--no-passphrase", "--json"))
    done = run("push", folder, *hub_options)
    assert done.exit_code == 0, done.output
    assert set(hub.files) == {
        "1.root.json", "2.root.json", "2.targets.json", "2.models.json", "1.policies.json", "1.agents.json"
    }  # fmt: skip
    hub.status = 409
    with pytest.raises(HubRefusal, match="older than 2"):
        hand_over(open_repository(folder), HubClient(hub.url, "t"))


def test_status_lists_roles_keys_and_what_is_signed(folder: Path) -> None:
    open_repository(folder).add([Target("models", "a" * 64, 7, "trace 2")], lambda name: None)
    (folder / "keys" / "root-2.pem").rename(folder.parent / "root-2.pem")
    status = shown(run("status", folder, "--json"))
    roles = {row["role"]: row for row in status["roles"]}
    assert (roles["root"]["version"], roles["root"]["threshold"]) == (1, 2)
    assert [key["here"] for key in roles["root"]["keys"]] == [True, False, True]
    assert roles["director"]["keys"] == [{"keyid": DIRECTOR, "place": "hub", "here": None}]
    assert (roles["models"]["version"], roles["models"]["days_left"], roles["models"]["targets"]) == (2, 364, 1)
    assert status["signed"] == {"models/" + "a" * 64: {"name": "trace 2", "size_bytes": 7}}
    table = run("status", folder).stdout
    assert "file2:keys/root-2.pem (not here)" in table
    assert "(not here)" not in run("status", folder, "--keys", folder.parent).stdout


def test_status_says_what_ends_soon(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("status", folder).stderr == ""
    now = repository.now()
    monkeypatch.setattr(repository, "now", lambda: now + timedelta(days=370))
    done = run("status", folder)
    assert f"edge-agent trust renew {folder} models" in done.stderr
    assert f"edge-agent trust renew {folder} root" not in done.stderr
    renewed = shown(run("renew", folder, "targets", "models", "policies", "agents", "--json"))
    assert renewed == {"renewed": ["targets", "models", "policies", "agents"]}
    assert run("status", folder).stderr == ""


def test_keys_come_and_go(folder: Path) -> None:
    assert shown(run("rotate", folder, "online", "--public-key", NEXT, "--json"))["role"] == "online"
    added = shown(run("add-key", folder, "targets", "--no-passphrase", "--json"))["key"]
    roles = {row["role"]: row for row in shown(run("status", folder, "--json"))["roles"]}
    assert [key["place"] for key in roles["targets"]["keys"]] == [
        "file2:keys/targets-1.pem",
        "file2:keys/targets-2.pem",
    ]
    first = roles["targets"]["keys"][0]["keyid"]
    assert shown(run("revoke-key", folder, "targets", first[:16], "--json")) == {"role": "targets", "revoked": first}
    refused = run("revoke-key", folder, "targets", added)
    assert isinstance(refused.exception, ConfigError)
    assert "add one before" in str(refused.exception)


def test_a_signer_that_exists(folder: Path, tmp_path: Path) -> None:
    made = shown(
        run("init", "--out", tmp_path / "two", *KEYS, "--no-passphrase", "--json",
            "--signer", f"models=file2:{folder / 'keys' / 'models-1.pem'}")
    )  # fmt: skip
    models = next(row for row in made["roles"] if row["role"] == "models")
    assert models["keys"][0]["place"] == f"file2:{folder / 'keys' / 'models-1.pem'}"
    assert not (tmp_path / "two" / "keys" / "models-1.pem").exists()
    wrong = run("init", "--out", tmp_path / "three", *KEYS, "--no-passphrase", "--signer", "hsm:2")
    assert "write ROLE=URI" in str(wrong.exception)


def test_withdraw(folder: Path) -> None:
    path = "models/" + "a" * 64
    open_repository(folder).add([Target("models", "a" * 64, 7, "trace 2")], lambda name: None)
    assert shown(run("withdraw", folder, path, "--json")) == {"withdrawn": path}
    assert shown(run("status", folder, "--json"))["signed"] == {}
    assert isinstance(run("withdraw", folder, path).exception, ConfigError)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--online-key", ONLINE], "give both"),
        ([*KEYS, "--hub", "https://hub.example"], "not both"),
        ([], "which hub?"),
        ([*KEYS], "--passphrase-file"),
        ([*KEYS, "--passphrase-file", "/absent"], "passphrase file /absent"),
        ([*KEYS[:2], "--director-key", "x", "--no-passphrase"], "64 hex digits"),
    ],
)
def test_init_that_makes_nothing(words: list[str], says: str, tmp_path: Path) -> None:
    done = run("init", "--out", tmp_path / "trust", *words)
    assert isinstance(done.exception, ConfigError), done.output
    assert says in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_the_passphrase_is_of_the_file_or_of_the_variable(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_TRUST_PASSPHRASE", "from the variable")
    shown(run("rotate", folder, "models", "--json"))
    open_repository(folder).add([Target("models", "a" * 64, 7, "m")], passphrases(None, interactive=False))
    (tmp_path / "secret").write_text("from the file")
    wrong = run("withdraw", folder, "models/" + "a" * 64, "--passphrase-file", tmp_path / "secret")
    assert isinstance(wrong.exception, ConfigError)
    assert "encfile:keys/models-2.pem: the passphrase is wrong" in str(wrong.exception)
    (tmp_path / "secret").write_text("two\nlines")
    with pytest.raises(ConfigError, match="wanted one line"):
        passphrases(tmp_path / "secret", interactive=True)
    with pytest.raises(ConfigError, match="on a terminal"):
        passphrases(None, interactive=False)("hsm:2")  # a passphrase is no PIN


def asked(typed: str, *names: str, plain: bool = False) -> tuple[list[str | None], str]:
    """What a person's answers come to, and what they were asked."""
    came: list[str | None] = []
    asking = typer.Typer()

    @asking.command()
    def ask() -> None:
        secret = passphrases(None, interactive=True, plain=plain)
        came.extend(secret(name) for name in names)

    done = CliRunner().invoke(asking, [], input=typed)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return came, done.stderr


def test_a_person_types_a_new_passphrase_twice_and_then_only_enter() -> None:
    came, said = asked(
        "one\none\n\ntwo\ntwo\n", "root-1.pem (new)", "root-2.pem (new)", "root-3.pem (new)", "root-2.pem"
    )
    assert came == ["one", "one", "two", "one"], "and is not asked again for what was just made"
    assert said.count("The same again") == 2
    assert "Enter for the same as before" in said
    with pytest.raises(ConfigError, match=r"root-1\.pem.*not the same"):
        asked("one\nother\n", "root-1.pem (new)")


def test_a_person_is_asked_for_each_key_and_a_pin_is_no_passphrase() -> None:
    came, said = asked("one\ntwo\n1234\n\n", "root-1.pem", "root-2.pem", "hsm:2", "models-1.pem")
    assert came == ["one", "two", "1234", "two"]
    assert "PIN of hsm:2" in said
    assert asked("one\n", "root-4.pem (new)", "root-1.pem", plain=True)[0] == [None, "one"]


def test_help_needs_no_tuf() -> None:
    program = "import sys, edge_cli.trust; print([name for name in sys.modules if name in ('tuf', 'securesystemslib')])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.strip() == b"[]"
