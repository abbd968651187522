"""The enrolment thread with its child processes, against a hub over real TLS; the knock; a start without a memory."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from small_hub import DAY, SmallHub, public_of

import edge_agent.enrol.service as service_module
from edge_agent.config import load_site
from edge_agent.enrol.attempt import Asked, Failed, NotDueYet, StoppedError, attempt
from edge_agent.enrol.identity import IdentityFolder
from edge_agent.enrol.schedule import Act, Held
from edge_agent.enrol.service import EnrolmentService
from edge_agent.enrol.start import asked_by, settle
from edge_agent.memory.checkpoint import SigningKey
from edge_sync.enrol.est import ENROLL

if TYPE_CHECKING:
    from tests.edge_agent.conftest import Eventually

SITE = "plant-01"


@pytest.fixture
def asked(small_hub: SmallHub, tmp_path: Path) -> Asked:
    data = tmp_path / "data"
    data.mkdir()
    SigningKey(data / "journal.key")
    (tmp_path / "token").write_text(small_hub.token(SITE) + "\n")
    return Asked(SITE, small_hub.url, data / "identity", tmp_path / "token", data / "journal.key")


class Watched:
    """A running service, and what it told."""

    def __init__(self, asked: Asked, online: bool = True) -> None:
        self.identities, self.refusals = 0, list[str]()
        self.got: list[tuple[Act, Held]] = []
        self.service = EnrolmentService(
            asked,
            lambda: time.time_ns() // 1000,
            lambda: online,
            self._identity,
            lambda act, held: self.got.append((act, held)),
            self.refusals.append,
            lambda: "its broker refuses it",
        )
        self.service.start()

    def _identity(self) -> None:
        self.identities += 1


@pytest.fixture
def watched(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr(service_module, "TICK_S", 0.1)
    made = Watched(asked)
    yield made
    made.service.close()


def test_a_site_joins_in_the_background_and_says_so_once(
    watched: Watched, small_hub: SmallHub, asked: Asked, eventually: "Eventually"
) -> None:
    eventually(lambda: watched.got)
    eventually(lambda: watched.identities)
    ((act, held),) = watched.got
    assert (act, watched.service.held, watched.identities) == ("join", held, 1)
    assert public_of(asked.identity / "certificate.pem") == small_hub.issued[0].request.key
    assert small_hub.issued[0].request.journal_key == SigningKey(asked.journal_key).public
    assert watched.service.problem is None


def test_a_refusal_is_told_and_a_new_token_counts_without_a_restart(
    watched: Watched, small_hub: SmallHub, asked: Asked, eventually: "Eventually"
) -> None:
    assert asked.token_file is not None
    asked.token_file.write_text(small_hub.token(SITE).replace("sss", "xxx"))
    eventually(lambda: watched.got or watched.refusals)
    if watched.got:  # it was quicker than the pen
        watched.got.clear()
    eventually(lambda: watched.refusals)
    assert "this join token is not known here: make a new one" in watched.refusals[0]
    asked.token_file.write_text(small_hub.token("_group-north"))
    eventually(lambda: watched.got)
    assert small_hub.issued[-1].by == "_group-north"


def test_a_due_certificate_is_renewed_in_the_background(
    asked: Asked, small_hub: SmallHub, eventually: "Eventually", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "TICK_S", 0.1)
    small_hub.life = -DAY
    assert isinstance(attempt(asked, "join", lambda: False), Held)
    small_hub.life = 90 * DAY
    monkeypatch.setattr("random.uniform", lambda low, _: low)
    watched = Watched(asked)
    try:
        eventually(lambda: watched.got)
        assert [act for act, _ in watched.got] == ["renew"]
        assert watched.identities == 1
    finally:
        watched.service.close()


def test_a_link_that_is_down_with_a_good_certificate_may_be_refused_and_that_is_told(
    asked: Asked, eventually: "Eventually", monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a site that was revoked: MQTT says no more than that the connection ended."""
    monkeypatch.setattr("edge_agent.enrol.schedule.DOWN_S", 0.0)
    monkeypatch.setattr("random.uniform", lambda low, _: low)
    assert isinstance(attempt(asked, "join", lambda: False), Held)
    watched = Watched(asked, online=False)
    try:
        eventually(lambda: watched.refusals)
        assert watched.refusals == ["the certificate is good by its dates, and its broker refuses it"]
        assert watched.service.problem == watched.refusals[0]
    finally:
        watched.service.close()


def test_a_service_ends_while_the_hub_keeps_it_waiting(asked: Asked, eventually: "Eventually") -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"https://localhost:{deaf.getsockname()[1]}"
        watched = Watched(Asked(SITE, url, asked.identity, asked.token_file, asked.journal_key))
        eventually(lambda: children_of(os.getpid()))
        began = time.monotonic()
        watched.service.close()
        assert time.monotonic() - began < 5.0
        assert not children_of(os.getpid())


def children_of(pid: int) -> list[bytes]:
    """The enrolment processes among its children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append((stat.parent / "cmdline").read_bytes())
        except OSError:
            continue
    return [each for each in found if b"edge_agent.enrol" in each]


def test_while_nobody_answers_no_process_is_started(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setattr(subprocess, "Popen", None)
    away = Asked(SITE, f"https://localhost:{port}", asked.identity, asked.token_file, asked.journal_key)
    outcome = attempt(away, "join", lambda: False)
    assert isinstance(outcome, Failed)
    assert outcome.reason.startswith(f"no answer from https://localhost:{port}")
    assert not outcome.final


def test_a_try_says_what_came_of_it(asked: Asked, small_hub: SmallHub) -> None:
    assert asked.token_file is not None
    assert attempt(asked, "renew", lambda: False) == Failed(
        f"site {SITE} has no certificate to renew: join first", final=True
    )
    small_hub.answers[ENROLL] = 429, "not so often", {"Retry-After": "7"}
    assert attempt(asked, "join", lambda: False) == Failed(f"{small_hub.url}: not so often", False, 7.0)
    small_hub.answers[ENROLL] = 403, "never", {}
    assert attempt(asked, "join", lambda: False) == Failed(f"{small_hub.url}: never", final=True)
    small_hub.answers.clear()
    held = attempt(asked, "join", lambda: False)
    assert held == IdentityFolder(asked.identity, SITE).held()
    assert isinstance(attempt(asked, "renew", lambda: False), NotDueYet)
    asked.token_file.unlink()
    gone = attempt(asked, "join", lambda: False)
    assert isinstance(gone, Failed)
    assert "No such file" in gone.reason


def test_a_try_that_takes_too_long_is_given_up(asked: Asked) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"https://localhost:{deaf.getsockname()[1]}"
        outcome = attempt(
            Asked(SITE, url, asked.identity, asked.token_file, asked.journal_key), "join", lambda: False, 2.0
        )
    assert isinstance(outcome, Failed)
    assert "is too slow" in outcome.reason


def test_a_try_ends_when_the_site_is_told_to(asked: Asked) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        attempt(asked, "join", stop.is_set)


SITE_FILE = """\
site: plant-01
hub: {{broker: "mqtts://localhost:1", enrol: "{url}", join_token_file: token, root: root.json}}
"""


def site_of(folder: Path, url: str) -> Any:
    (folder / "site.yaml").write_text(SITE_FILE.format(url=url))
    return load_site(folder / "site.yaml")


def test_a_start_without_a_memory_joins_first(small_hub: SmallHub, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(small_hub.token(SITE))
    (tmp_path / "data").mkdir()
    site = site_of(tmp_path, small_hub.url)
    held = settle(site, lambda: False)
    assert held is not None
    assert held == IdentityFolder(site.identity, SITE).held()
    assert small_hub.issued[0].request.journal_key == SigningKey(tmp_path / "data" / "journal.key").public
    assert settle(site, lambda: False) is None, "it joined a second time"
    assert len(small_hub.issued) == 1


def test_a_start_with_a_memory_leaves_joining_to_the_background(small_hub: SmallHub, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(small_hub.token(SITE))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "memory.db").touch()
    assert settle(site_of(tmp_path, small_hub.url), lambda: False) is None
    assert small_hub.asked == []


def test_a_start_whose_hub_says_no_goes_on(small_hub: SmallHub, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(small_hub.token(SITE))
    small_hub.tokens.clear()
    (tmp_path / "data").mkdir()
    assert settle(site_of(tmp_path, small_hub.url), lambda: False) is None
    assert small_hub.asked[-1] == ENROLL


def test_a_site_that_does_not_enrol_asks_nobody(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("site: plant-01\nhub: {broker: 'mqtt://localhost', root: root.json}\n")
    site = load_site(tmp_path / "site.yaml")
    assert asked_by(site) is None
    assert settle(site, lambda: False) is None
    assert not (tmp_path / "data").exists()


def test_a_site_process_imports_nothing_of_x509_for_its_certificate() -> None:
    program = (
        "import sys, edge_agent.site\n"
        "print([name for name in sys.modules if name.startswith('cryptography') or name == 'edge_agent.enrol.client'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
