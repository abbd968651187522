"""Taking back what a site was given, whatever was set back or cut short. On a real broker: tests/integration."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from edge_hub.broker import eject
from edge_hub.broker.running import Running, note_running, process_born
from edge_hub.database.store import UnknownError
from edge_hub.enrol.ledger import REVOKED


@pytest.fixture
def deaf(office: Any) -> Iterator[subprocess.Popen[str]]:
    """A broker's process that lives and answers nobody."""
    program = (
        "import signal, time; signal.signal(signal.SIGHUP, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        note_running(office.brokers.path, Running("mosquitto", 1, child.pid, process_born(child.pid)))
        yield child
        child.kill()


def test_all_that_a_site_has_is_taken_back_at_once(office: Any) -> None:
    office.joined("plant-01")
    office.joined("plant-02")
    said = office.revoking.revoke("plant-01", "stolen", "operator")
    assert said == {"site": "plant-01", "revoked_us": office.clock.now_us, "certificates": 1, "ended": True}
    (certificate,) = office.certificates("plant-01")
    assert certificate.revoked_us == office.clock.now_us
    assert set(office.means.ledger.revoked()) == {certificate.serial}
    assert set(office.brokers.users()) == {"plant-02", "_local_plant-02"}
    with pytest.raises(UnknownError):
        office.revoking.revoke("plant-03", "", "operator")
    again = office.revoking.revoke("plant-01", "", "operator")
    assert (again["certificates"], again["revoked_us"]) == (0, said["revoked_us"])
    assert [what for what, _ in office.audited()].count("site revoked") == 1


def test_a_broker_that_does_not_answer_is_tried_again(
    office: Any, deaf: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eject, "WAIT_S", 0.2)
    office.token("plant-01")
    assert not office.revoking.revoke("plant-01", "", "operator")["ended"]
    assert office.brokers.users() == {}, "nobody comes in by then"
    office.revoking.look_after()
    assert office.revoking._to_eject == {"plant-01"}
    deaf.send_signal(signal.SIGKILL)
    deaf.wait()
    office.revoking.look_after()
    assert not office.revoking._to_eject, "a broker that is gone has no sessions"


def test_who_was_registered_anew_meanwhile_keeps_what_it_got(
    office: Any, deaf: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eject, "WAIT_S", 0.2)
    office.token("plant-01")
    office.revoking.revoke("plant-01", "", "operator")
    made = office.sites.register("plant-01", {}, replace=True, who="operator")
    office.revoking.look_after()
    assert office.brokers.users()["plant-01"].matches(made["password"])


def test_what_was_cut_short_is_finished_at_the_next_start(office: Any) -> None:
    office.joined("plant-01")
    before = office.brokers.credentials.read_bytes()
    office.revoking.revoke("plant-01", "", "operator")
    office.joined("plant-02")
    office.close()
    office.brokers.credentials.write_bytes(before)  # as if it ended before the broker was told
    (office.means.authority.path / REVOKED).unlink()
    office.open()
    users = office.brokers.users()
    assert set(users) == {"plant-02"}
    assert users["plant-02"].password is None
    assert set(office.means.ledger.revoked()) == {office.certificates("plant-01")[0].serial}


def test_who_was_being_ejected_when_the_hub_ended_is_let_in_again(office: Any) -> None:
    office.joined("plant-01")
    office.sites.register("plant-02", {}, replace=False, who="operator")
    office.brokers.change(passwords={"plant-01": "ejected", "_local_plant-02": "ejected"})
    office.close()
    office.open()
    users = office.brokers.users()
    assert (users["plant-01"].role, users["plant-01"].password) == ("site", None)
    assert users["_local_plant-02"].role == "local"


def test_a_revocation_that_the_disk_refuses_is_none(office: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    node = office.joined("plant-01")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("edge_hub.enrol.ledger.write_private", full)
        with pytest.raises(OSError, match="No space"):
            office.revoking.revoke("plant-01", "", "operator")
    assert node.renew().status == 200
    office.revoking.revoke("plant-01", "", "operator")
    assert node.renew().status == 403
