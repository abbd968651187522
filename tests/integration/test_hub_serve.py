"""`edge-agent hub serve` as a process: how it starts, ends, and says what is wrong."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from edge_cli.hub_client import connect
from edge_hub.broker import HUB
from edge_hub.broker.running import find_running, process_born
from edge_sync.mqtt import Broker, Link


def serve(folder: Path, *options: str) -> tuple[int, str]:
    """A hub that can't start: exit code and what it said."""
    words = [sys.executable, "-m", "edge_cli.main", "hub", "serve", str(folder), "--http", "127.0.0.1:0", *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_it_brings_a_broker_along_and_leaves_nothing_behind(tmp_path: Path, new_hub: Any, until: Any) -> None:
    hub = new_hub(tmp_path / "hub").start()
    client = connect(None, None, hub.folder)
    until(lambda: client.request("GET", "/healthz")["broker"], "the hub to reach its broker")
    running = find_running(hub.folder / "broker")
    assert running is not None
    assert hub.facts["broker"] == f"mqtt://127.0.0.1:{running.port}"
    assert hub.stop() == 0
    assert process_born(running.pid) != running.born
    assert not (hub.folder / "hub.json").exists()
    lines = [line for line in hub.log().splitlines() if line.startswith("{")]
    assert [orjson.loads(line)["event"] for line in lines if "hub_" in line] == ["hub_ready", "hub_stopping"]
    hub.start()
    assert hub.facts["broker"] == f"mqtt://127.0.0.1:{running.port}"


def test_a_broker_that_is_killed_comes_back_on_its_port(tmp_path: Path, new_hub: Any, until: Any) -> None:
    hub = new_hub(tmp_path / "hub").start()
    first = find_running(hub.folder / "broker")
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)

    def again() -> Any:
        found = find_running(hub.folder / "broker")
        return found if found is not None and found.pid != first.pid else None

    assert until(again, "another broker").port == first.port
    until(lambda: connect(None, None, hub.folder).request("GET", "/healthz")["broker"], "the hub to reach it")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel ends a child with its parent")
def test_its_broker_ends_with_a_hub_that_is_killed(tmp_path: Path, new_hub: Any, until: Any) -> None:
    hub = new_hub(tmp_path / "hub").start()
    running = find_running(hub.folder / "broker")
    assert running is not None
    hub.kill()
    until(lambda: not running.alive(), "the broker to end")


def test_ctrl_c_ends_it_as_sigterm_does(tmp_path: Path, new_hub: Any) -> None:
    hub = new_hub(tmp_path / "hub").start()
    os.kill(hub.facts["pid"], signal.SIGINT)
    assert hub.stop() == 0


def test_it_waits_for_a_broker_that_is_away_and_says_so(tmp_path: Path, new_hub: Any, until: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"mqtt://127.0.0.1:{taken.getsockname()[1]}"
    hub = new_hub(tmp_path / "hub", "--broker", url).start()
    assert connect(None, None, hub.folder).request("GET", "/healthz") == {"ok": True, "broker": False}
    until(lambda: f"no connection to {url}" in hub.log(), "the hub to say that its broker is away")
    assert hub.stop() == 0


def test_what_cannot_be_served_is_one_line(tmp_path: Path, new_hub: Any) -> None:
    hub = new_hub(tmp_path / "hub").start()
    code, said = serve(hub.folder)
    assert (code, "a hub runs in" in said) == (2, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = serve(tmp_path / "other", "--http", f"127.0.0.1:{taken.getsockname()[1]}")
    assert (code, "in use" in said) == (2, True)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("")
    code, said = serve(tmp_path / "photos")
    assert (code, "is no hub's folder" in said) == (2, True)
    code, said = serve(tmp_path / "other", "--http", "0.0.0.0:8600")
    assert (code, "no TLS" in said) == (2, True)
    code, said = serve(tmp_path / "other", "--broker", "mqtt://192.0.2.1:1883")
    assert (code, "TLS" in said) == (2, True)
    code, said = serve(tmp_path / "other", "--broker", "nonsense")
    assert (code, "broker 'nonsense'" in said) == (2, True)


def test_nobody_but_the_hub_is_the_hub(tmp_path: Path, new_hub: Any, until: Any) -> None:
    hub = new_hub(tmp_path / "hub").start()
    (tmp_path / "guess").write_text("guess")
    said: list[str] = []
    link = Link(
        Broker(hub.facts["broker"], HUB, HUB, tmp_path / "guess"), lambda event: said.append(str(event)), [("#", 0)]
    )
    link.start()
    try:
        until(lambda: any("refused" in each for each in said), "the broker to refuse")
    finally:
        link.close()
