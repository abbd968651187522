"""The demo: a broker, a hub and three sites as processes of their own, and five things that happen to them."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from edge_cli.demo.books import Balance, balance, pick_decision
from edge_cli.demo.cast import (
    CUT,
    PLAYERS,
    PROBED,
    PROBED_BUNDLE,
    PROBED_INPUT,
    PROBED_MODEL,
    lay_out,
    streams,
    what_is_better,
)
from edge_cli.demo.children import Children
from edge_cli.demo.feeder import FeederConfig
from edge_cli.demo.fleet import FleetView, SiteView
from edge_cli.demo.interrupt import Interrupt
from edge_cli.demo.prober import Prober
from edge_cli.demo.relay import Relay
from edge_cli.demo.screen import Line, Screen
from edge_cli.hub_client import HubClient
from edge_hub.broker import FEEDER, BrokerFolder, BrokerProcess
from edge_models.bundle import read_bundle
from edge_models.errors import RetryableError

LOOK_S = 0.4
"""How often the fleet is looked at."""

PATIENCE_S = 60.0
"""How long any one thing may take before the demo gives up and says which."""

FEEDER_MODULE = "edge_cli.demo.feeder"

SITES = tuple(player.site for player in PLAYERS)


class Story:
    """Plays the demo in a folder; everything it started ends with the context."""

    def __init__(self, folder: Path, screen: Screen, broker: Literal["mosquitto", "amqtt"] | None) -> None:
        """`broker`: the kind to start; None: mosquitto where it is installed, else amqtt."""
        self.folder, self._screen, self._kind = folder, screen, broker
        self._interrupt = Interrupt()
        self._stack = ExitStack()
        self._started = time.monotonic()
        self._relays: dict[str, Relay] = {}
        self._cut_us: tuple[int, int] | None = None
        self._is_cut = False
        self._prober: Prober | None = None

    @property
    def _trust(self) -> Path:
        """The operator's keys; in clear, as nobody is there to type a passphrase."""
        return self.folder / "trust"

    def __enter__(self) -> "Story":
        self._stack.enter_context(self._interrupt)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def set_up(self) -> None:
        """Broker, hub, three provisioned sites, and machines that talk."""
        lay_out(self.folder / "files")
        (self.folder / "hub").mkdir()
        self._children = self._stack.enter_context(Children(self.folder / "logs"))
        broker_folder = BrokerFolder(self.folder / "hub" / "broker")
        feeder_password = broker_folder.add_user(FEEDER, "feeder")
        self.broker = self._stack.enter_context(BrokerProcess(broker_folder, prefer=self._kind))
        self._children.start(
            "hub", "edge_cli.main", "hub", "serve", str(self.folder / "hub"), "--broker", self.broker.url,
            "--http", "127.0.0.1:0",
        )  # fmt: skip
        hub_file = self.folder / "hub" / "hub.json"
        self._wait("the hub", lambda _: hub_file.exists())
        self.hub_url = str(json.loads(hub_file.read_bytes())["http"])
        self._hub = HubClient(self.hub_url, (self.folder / "hub" / "operator.token").read_text().strip())
        hub = str(self.folder / "hub")
        self._command("trust", "init", "--out", str(self._trust), "--hub-dir", hub, "--no-passphrase")
        self._screen.note(f"{self.broker.kind} and the hub are up; provisioning {', '.join(SITES)}")
        self._provision()
        self._fleet = FleetView(self._hub, {site: self.folder / "sites" / site for site in SITES})
        for site in SITES:
            self._start_site(site)
        self._feed(feeder_password)

    def play(self) -> None:
        """The five steps."""
        self._decide()
        self._cut()
        self._release()
        self._mend()

    def settle(self, stop_sites: bool) -> dict[str, Balance]:
        """Let what is on its way arrive, then balance every site's books."""
        self._screen.step(5, "The books are balanced.", "site against hub, record by record")
        self._children.stop("feeder")
        if stop_sites:
            self._children.stop(*SITES)
        hub_db = self.folder / "hub" / "hub.db"
        books: dict[str, Balance] = {}

        def even(_: object) -> bool:
            for site in SITES:
                books[site] = balance(self._memory(site), hub_db, site, self._cut_us if site == CUT else None)
            return all(each.even for each in books.values())

        try:
            self._wait("the books to balance", even, patience_s=25.0)
        except RetryableError:
            self._screen.note("the books do not balance")
        return books

    def summary(self, books: dict[str, Balance]) -> dict[str, Any]:
        """What `--json` prints."""
        views = self._fleet.now
        sites = {
            site: {**{k: v for k, v in asdict(each).items() if k != "chain_breaks"}, "release": views[site].release}
            for site, each in books.items()
        }
        prober = self._prober
        requests = {"sent": prober.sent, "failed": prober.failed} if prober else {"sent": 0, "failed": 0}
        even = all(each.even and each.records_at_site for each in books.values())
        return {
            "sites": sites,
            "releases": sorted(entry["release"] for entry in self._hub.request("GET", "/api/v1/releases")["releases"]),
            "requests_during_swap": requests,
            "broker": self.broker.kind,
            "seconds": round(time.monotonic() - self._started, 1),
            "ok": even and all(views[site].release == 2 for site in SITES) and requests["failed"] == 0,
        }

    def decision_to_explain(self) -> str | None:
        """A decision of the site that was cut off, from that time."""
        return pick_decision(self._memory(CUT), self._cut_us)

    def hold(self) -> None:
        """Let the machines talk again, and go on until the user interrupts."""
        self._children.start("feeder", FEEDER_MODULE, str(self.folder / "feeder.json"))
        self._screen.turn_page()
        while True:
            self._interrupt.check()
            self._look()
            time.sleep(LOOK_S)

    def where_to_look(self) -> str:
        """Addresses and commands for whoever wants to look around while it is held."""
        ports = "".join(f"\n  {site}: http://127.0.0.1:{self._fleet.api_port(site)}/" for site in SITES)
        hub = self.folder / "hub"
        memory = self._memory(CUT)
        return (
            f"it goes on; Ctrl-C ends it. Status pages:{ports}\n"
            f"  hub: {self.hub_url}/api/v1/sites (bearer token in {hub / 'operator.token'})\n"
            f"  try: edge-agent fleet ls --hub-dir {hub}\n"
            f"       edge-agent memory tail -m {memory} --kind decision"
        )

    def memory_of(self, site: str) -> Path:
        """A site's journal."""
        return self._memory(site)

    def _decide(self) -> None:
        self._screen.step(1, "Agents decide at every site;", "the hub's counts follow")
        self._wait(
            "decisions at every site and at the hub",
            lambda now: all(v.decisions >= 25 and v.hub_records >= 25 and v.online for v in now.values()),
        )
        self._screen.snapshot()

    def _cut(self) -> None:
        self._screen.step(2, f"The link of {CUT} is cut.", "it goes on deciding and acting")
        self._cut_us = (time.time_ns() // 1000, 2**62)
        self._is_cut = True
        self._relays[CUT].cut()
        before = self._fleet.now[CUT]
        self._wait(
            f"{CUT} to decide without a link",
            lambda now: now[CUT].decisions > before.decisions + 60 and not now[CUT].online and now[CUT].backlog > 200,
        )
        self._screen.snapshot()

    def _release(self) -> None:
        self._screen.step(3, "Release 2: better models and a changed policy.", "pushed to all sites")
        self._screen.note(f"held-out accuracy: {what_is_better()}")
        self._probe()
        files = self.folder / "files"
        out = str(self.folder / "release-2")
        self._command("release", "create", str(files / "release-2.yaml"), "--trust", str(self._trust), "--out", out)
        self._command("release", "push", out, "--all", "--hub-dir", str(self.folder / "hub"))
        others = [site for site in SITES if site != CUT]
        self._wait("release 2 at the connected sites", lambda now: all(now[site].release == 2 for site in others))
        again = {site: self._fleet.now[site].decisions for site in others}
        self._wait("decisions under release 2", lambda now: all(now[s].decisions > again[s] + 10 for s in others))
        if self._prober is not None:
            self._prober.stop()
            self._screen.note(
                f"{PROBED} answered {self._prober.sent} requests while it switched, {self._prober.failed} failed"
            )
        self._screen.snapshot()

    def _mend(self) -> None:
        self._screen.step(4, "The link returns.", f"{CUT} catches up, then takes release 2")
        self._relays[CUT].mend()
        self._is_cut = False
        if self._cut_us is not None:
            self._cut_us = (self._cut_us[0], time.time_ns() // 1000)
        self._wait(f"release 2 at {CUT}", lambda now: now[CUT].release == 2 and now[CUT].online)
        again = self._fleet.now[CUT].decisions
        self._wait(f"{CUT} to catch up", lambda now: now[CUT].backlog < 200 and now[CUT].decisions > again + 10)
        self._screen.snapshot()

    def _provision(self) -> None:
        """Three kits, made by the command a platform engineer would use."""
        for player in PLAYERS:
            relay = self._relays[player.site] = Relay(self.broker.port)
            self._stack.callback(relay.close)
            labels = [part for key, value in player.labels.items() for part in ("--label", f"{key}={value}")]
            self._command(
                "node", "provision", player.site, "--hub", self.hub_url,
                "--token-file", str(self.folder / "hub" / "operator.token"),
                "--broker", f"mqtt://127.0.0.1:{relay.port}", "--local-broker", self.broker.url, "--api-port", "0",
                "--release", str(self.folder / "files" / "release-1.yaml"),
                "--trust", str(self._trust),
                "--out", str(self.folder / "kits" / player.site), *labels,
            )  # fmt: skip

    def _start_site(self, site: str) -> None:
        site_file = self.folder / "kits" / site / "site.yaml"
        data = self.folder / "sites" / site
        self._children.start(site, "edge_cli.main", "run", str(site_file), "--data", str(data))

    def _feed(self, password: str) -> None:
        password_file = self.folder / "feeder.password"
        password_file.touch(0o600)
        password_file.write_text(password)
        config = FeederConfig(
            broker=self.broker.url,
            username=FEEDER,
            password_file=password_file,
            streams=streams(self.folder / "files"),
        )
        file = self.folder / "feeder.json"
        file.write_text(config.model_dump_json())
        self._children.start("feeder", FEEDER_MODULE, str(file))

    def _probe(self) -> None:
        port = self._fleet.api_port(PROBED)
        golden = read_bundle(self.folder / "files" / PROBED_BUNDLE).golden
        sample = golden.inputs[PROBED_INPUT][:1]
        body = {
            "inputs": [
                {"name": PROBED_INPUT, "shape": list(sample.shape), "datatype": "FP32", "data": sample.ravel().tolist()}
            ]
        }
        self._prober = Prober(f"http://127.0.0.1:{port}/v2/models/{PROBED_MODEL}/infer", body, rate_per_s=50)
        self._stack.callback(self._prober.stop)
        self._prober.start()

    def _command(self, *arguments: str) -> None:
        """Run an `edge-agent` command as a user would. Raises `RetryableError` with what it said."""
        self._interrupt.check()
        done = subprocess.run(
            [sys.executable, "-m", "edge_cli.main", *arguments], capture_output=True, text=True, check=False
        )
        self._interrupt.check()
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise RetryableError(f"edge-agent {' '.join(arguments[:3])} failed: {said[-1] if said else 'in silence'}")

    def _wait(self, what: str, is_so: Callable[[dict[str, SiteView]], bool], patience_s: float = PATIENCE_S) -> None:
        """Look at the fleet until `is_so`. Raises `RetryableError` when it takes too long, or a process ended."""
        deadline = time.monotonic() + patience_s
        while True:
            self._interrupt.check()
            self._children.check()
            if is_so(self._look()):
                return
            if time.monotonic() > deadline:
                raise RetryableError(f"waited {patience_s:.0f} s for {what}; logs are in {self.folder / 'logs'}")
            time.sleep(LOOK_S)

    def _look(self) -> dict[str, SiteView]:
        if not hasattr(self, "_fleet"):
            return {}
        now = self._fleet.look()
        self._screen.show(Line(now[site], cut=self._is_cut and site == CUT) for site in SITES)
        return now

    def _memory(self, site: str) -> Path:
        return self.folder / "sites" / site / "memory.db"
