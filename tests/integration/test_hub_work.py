"""`edge-agent hub work`: a worker in a place of its own takes its share of a hub's sites."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_cli.hub_secrets import take_secrets
from edge_cli.hub_work import number_of, work
from edge_hub.broker import BrokerFolder, BrokerProcess
from edge_hub.broker.mosquitto import find_mosquitto
from edge_hub.database.schema import leases, records, streams
from edge_hub.database.store import Store
from edge_models.errors import ConfigError
from edge_sync.documents import Ack, Presence, dump, load
from edge_sync.signing import make_key

EPOCH = "00000000000000aa"
ROWS = 40
BEFORE_REGISTERED = "import typer; from edge_cli.hub_work import command; typer.run(command)"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """What the hub's pod and its workers' are given."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name in ("director.key", "online.key"):
        make_key(folder / name)
    for name in ("_hub", "_hub-1", "_hub-2", "_hub-3"):
        (folder / f"{name}.password").write_text(f"the password of {name}")
    return folder


@contextmanager
def working(folder: Path, log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as said:
        child = subprocess.Popen([sys.executable, "-c", BEFORE_REGISTERED, str(folder), *words], stderr=said)
    try:
        yield child
    finally:
        child.kill()
        child.wait(20)


@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
def test_a_worker_elsewhere_takes_its_share_and_gives_it_back(
    secrets: Path,
    postgres_url: str,
    new_hub: Any,
    connect_site: Any,
    stream: Any,
    until: Any,
    tmp_path: Path,
) -> None:
    for place in ("hub", "elsewhere"):
        take_secrets(secrets, tmp_path / place, tmp_path / f"{place}-run")
    with ExitStack() as stack:
        broker = stack.enter_context(BrokerProcess(BrokerFolder(tmp_path / "hub" / "broker"), prefer="mosquitto"))
        servers = ("--broker", broker.url, "--database", postgres_url)
        hub = new_hub(tmp_path / "hub", "--workers", "2", *servers).start()
        store = Store(postgres_url)
        stack.callback(store.close)

        def view(query: Any) -> list[Any]:
            with store.reading() as db:
                return list(db.execute(query).all())

        def shares() -> dict[str, int]:
            held = [row.worker for row in view(leases.select())]
            return {worker: held.count(worker) for worker in set(held)}

        child = stack.enter_context(working(tmp_path / "elsewhere", tmp_path / "worker.log", *servers, "--number", "3"))
        names = [f"plant-{n:02}" for n in range(1, 7)]
        sites = [connect_site(hub, name) for name in names]
        until(lambda: shares() == {"_hub-1": 2, "_hub-2": 2, "_hub-3": 2}, "each worker to hold its share")
        written = stream(EPOCH).grow(2 * ROWS)
        for site in sites:
            site.say("presence", dump(Presence(online=True, epoch=EPOCH, session=1)), retain=True)
            site.say("journal", written.batch(1, ROWS))
        until(lambda: [row.high for row in view(streams.select())] == [ROWS] * 6, "everything to be taken in")
        # Its sites believe what it signs: the keys are the hub's.
        elsewhere = {row.site for row in view(leases.select()) if row.worker == "_hub-3"}
        for site in (each for each in sites if each.site in elsewhere):
            assert load(Ack, site.told("ack")).seq == ROWS

        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0, (tmp_path / "worker.log").read_text()
        until(lambda: shares() == {"_hub-1": 3, "_hub-2": 3}, "the others to hold what it gave back")
        for site in sites:
            site.say("journal", written.batch(ROWS + 1, 2 * ROWS))
        until(lambda: [row.high for row in view(streams.select())] == [2 * ROWS] * 6, "the rest to be taken in")
        held = [(row.site, row.seq) for row in view(records.select().order_by(*records.primary_key))]
        assert held == [(name, seq) for name in names for seq in range(1, 2 * ROWS + 1)]


@pytest.mark.parametrize("missing", ["director.key", "online.key", "_hub-3.password"])
def test_a_worker_without_its_hubs_keys_does_not_begin(secrets: Path, tmp_path: Path, missing: str) -> None:
    (secrets / missing).unlink()
    take_secrets(secrets, tmp_path / "elsewhere", tmp_path / "run")
    with pytest.raises(ConfigError, match=f"{missing} is missing"):
        work(tmp_path / "elsewhere", 3, "mqtts://mqtt.example.com", "postgresql://hub@127.0.0.1:1/hub")
    assert not list((tmp_path / "elsewhere").rglob(missing))


def test_a_worker_speaks_to_no_broker_elsewhere_in_clear(secrets: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use mqtts://"):
        work(tmp_path, 3, "mqtt://mqtt.example.com", "postgresql://hub@127.0.0.1:1/hub")


@pytest.mark.parametrize(("host", "number"), [("workers-3", 3), ("edge-hub-workers-42", 42)])
def test_a_pods_name_is_its_number(host: str, number: int) -> None:
    assert number_of(host) == number


@pytest.mark.parametrize("host", ["workers", "workers-0", "workers-100", "workers-03", "worker3", "3"])
def test_another_name_is_none(host: str) -> None:
    with pytest.raises(ConfigError, match="give the worker's --number"):
        number_of(host)
