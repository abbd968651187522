"""docs/operations.md, Without a network: a site that never had a link is updated from a stick; and what a technician
steers, on real processes (sync/TRUST.md, Sticks)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_desk import CommandDesk


@pytest.fixture
def desk(tmp_path: Path, new_hub: Callable[..., Any]) -> Iterator[CommandDesk]:
    made = CommandDesk(tmp_path, new_hub(tmp_path / "hub").start())
    yield made
    made.close()


def test_a_site_that_never_had_a_link_takes_a_release_from_a_stick(desk: CommandDesk, until: Any) -> None:
    site = desk.provision("plant-01")
    desk.release(2, "2")
    said = desk.run("update", "export", "--all", "--out", desk.folder / "stick", "--hub-dir", desk.hub.folder)
    assert "for 1 sites" in said
    assert desk.hub.stop() == 0
    child = desk.start(site)
    until((site.parent / "data" / "api.port").exists, "the site to be up without any network")
    assert "it runs release 2" in desk.run("update", "import", desk.folder / "stick", "--site", site)
    shown = desk.status(site)
    assert (shown["release"], shown["previous"], shown["on_trial"], shown["running"]) == (2, 1, True, True)
    assert shown["trust"]["models"]["version"] == 2

    assert "model appliance 2 passes its golden check" in desk.run("doctor", site, code=1), "no hub, and what runs"

    said = desk.run("update", "rollback", site, "--reason", "labels the wrong shelf")
    assert "it runs release 1" in said
    shown = desk.status(site)
    assert (shown["release"], shown["previous"], shown["refusal"]) == (1, None, "at the site: labels the wrong shelf")
    said = desk.run("update", "import", desk.folder / "stick", "--site", site, "--wait", 5, code=1)
    assert "refused it: at the site: labels the wrong shelf" in said
    child.kill()
    child.wait()
    again = desk.start(site)
    until(lambda: desk.status(site)["running"], "the site to be back")
    assert desk.status(site)["release"] == 1
    assert again.poll() is None


def test_a_stick_for_a_site_that_does_not_run_is_taken_when_it_starts(desk: CommandDesk, until: Any) -> None:
    site = desk.provision("plant-01")
    desk.release(2, "2")
    desk.run("update", "export", "--to", "plant-01", "--out", desk.folder / "stick", "--hub-dir", desk.hub.folder)
    desk.hub.stop()
    child = desk.start(site)
    until((site.parent / "data" / "api.port").exists, "the first start")
    child.terminate()
    child.wait(20)
    said = desk.run("update", "import", desk.folder / "stick", "--site", site)
    assert "it does so when it starts" in said
    assert desk.status(site)["waiting"] == 1
    desk.start(site)
    until(lambda: desk.status(site)["release"] == 2, "the release from the stick")


def test_what_is_no_stick_or_for_another_site_is_one_clear_line(desk: CommandDesk, until: Any, tmp_path: Path) -> None:
    site = desk.provision("plant-01")
    other = desk.provision("plant-02")
    desk.release(2, "2")
    stick = desk.folder / "stick"
    desk.run("update", "export", "--to", "plant-01", "--out", stick, "--hub-dir", desk.hub.folder)
    assert "never ran: start it" in desk.run("update", "status", site, code=2)
    assert "it does so when it starts" in desk.run("update", "import", stick, "--site", site)
    desk.start(other)
    until((other.parent / "data" / "memory.db").exists, "the other site")
    assert "is not for plant-02: it is for plant-01" in desk.run("update", "import", stick, "--site", other, code=3)
    assert "there already" in desk.run(
        "update", "export", "--all", "--out", stick, "--hub-dir", desk.hub.folder, code=2
    )
    assert "for whom?" in desk.run("update", "export", "--out", tmp_path / "x", "--hub-dir", desk.hub.folder, code=2)
    assert "wanted days" in desk.run(
        "update", "export", "--all", "--valid", "9y", "--out", tmp_path / "x", "--hub-dir", desk.hub.folder, code=2
    )
    desk.run("update", "hold", other, "--reason", "stocktaking")
    until(lambda: desk.status(other)["held"] == "stocktaking", "the hold")
    assert "takes what is new again" in desk.run("update", "unhold", other)
    assert "was not held" in desk.run("update", "unhold", other)
    assert "a stick for updates?" in desk.run("update", "import", tmp_path / "none", "--site", other, code=2)
