"""kill -9 at every operation of a file, and at every connection, of a join and of a renewal: a later try ends it well.

The process under test kills itself at its n-th audited operation, for n from 1 on until it lives to the end.
"""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_hub import SmallHub, public_of

from edge_agent.enrol.client import EstClient
from edge_agent.enrol.flow import join
from edge_agent.enrol.identity import IdentityFolder

SITE = "plant-01"

PROGRAM = """
import os, signal, sys
from pathlib import Path
from edge_agent.enrol.__main__ import main
from edge_agent.enrol import flow, client, identity

data, left, started = sys.argv[1], int(sys.argv[2]), False

def hook(event, args):
    global left
    if not started:
        return
    ours = event == "socket.connect" or (event in OPERATIONS and any(str(data) in str(arg) for arg in args))
    if ours:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.chmod"}
main(["renew", "--site", "x-warm", "--url", "https://127.0.0.1:1", "--identity", "/nonexistent/identity"])
sys.addaudithook(hook)
started = True
print(__import__("json").dumps(main(sys.argv[3:])))
"""


def run(data: Path, hub: SmallHub, act: str, at: int) -> subprocess.CompletedProcess[str]:
    words = [act, "--site", SITE, "--url", hub.url, "--identity", str(data / "identity")]
    words += ["--token", str(data.parent / "token")] if act == "join" else []
    command = [sys.executable, "-c", PROGRAM, str(data), str(at), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def whole(folder: IdentityFolder) -> bool:
    """Whether key and certificate belong together and are of one answer."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from edge_sync.enrol.request import public_half

    assert load_pem_private_key(folder.key.read_bytes(), None)
    return public_of(folder.certificate) == public_half(folder.key.read_bytes())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("act", ["join", "renew"])
def test_killed_at_any_operation_a_site_has_the_old_identity_or_the_new_and_goes_on(
    tmp_path: Path, small_hub: SmallHub, act: str
) -> None:
    data, start = tmp_path / "site" / "data", tmp_path / "start"
    start.mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "token").write_text(small_hub.token(SITE))
    if act == "renew":
        join(EstClient(small_hub.url), IdentityFolder(start / "identity", SITE), SITE, small_hub.token(SITE), None)
        small_hub.says_time = False
        about = start / "identity" / "about.json"
        about.write_text(json.dumps(json.loads(about.read_text()) | {"renew_us": 0}))
    before = len(small_hub.issued)
    killed = 0
    while True:
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(start, data)
        del small_hub.issued[before:]
        folder = IdentityFolder(data / "identity", SITE)
        first = run(data, small_hub, act, killed + 1)
        if first.returncode == 0:
            break
        assert first.returncode == -signal.SIGKILL, first.stderr
        killed += 1
        folder.settle()
        if folder.path.exists():
            assert whole(folder)
        if act == "renew" or folder.held() is None:
            again = json.loads(run(data, small_hub, act, 0).stdout)
            assert "got" in again or "not_due_us" in again, again
        assert whole(folder)
        assert folder.held() is not None
        new = small_hub.issued[before:]
        assert len(new) in (1, 2), "one certificate, or two where the first was taken before the kill"
        assert public_of(folder.certificate) == new[-1].request.key
        assert not (data / "identity.next").exists()
        assert not (data / "identity.old").exists(), "the old key is gone"
    assert killed > 15, "fewer operations than a join has: the hook saw nothing"
    assert "got" in json.loads(first.stdout)
