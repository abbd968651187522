"""A hub's enrolment over real TLS, its clocks set by hand; no broker runs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from est_client import Node
from sqlalchemy import select

from edge_hub.broker import BrokerFolder
from edge_hub.database.schema import audit, certificates
from edge_hub.database.store import Store
from edge_hub.enrol.authority import make_authority
from edge_hub.enrol.enrolment import Enrolment, Means
from edge_hub.enrol.listener import EnrolServer, bind_enrol, enrol_url
from edge_hub.enrol.plan import EnrolPlan
from edge_hub.enrol.revoking import Revoking
from edge_hub.sites import Sites

START_US = 2_210_000_000_000_000
"""In 2040: no handshake may ask what time it is, and no test what time it is here."""
DAY_US = 86_400_000_000


@dataclass(slots=True)
class Clock:
    """The hub's clock, and one that only grows."""

    now_us: int = START_US
    seconds: float = 1_000.0

    def us(self) -> int:
        return self.now_us

    def monotonic(self) -> float:
        return self.seconds

    def go_on(self, days: float) -> None:
        """So much time passes."""
        self.now_us += int(days * DAY_US)
        self.seconds += days * 86_400


@dataclass(slots=True)
class Office:
    """All of it, and its operator."""

    folder: Path
    store: Store
    brokers: BrokerFolder
    means: Means
    clock: Clock = field(default_factory=Clock)
    enrolment: Enrolment = field(init=False)
    revoking: Revoking = field(init=False)
    sites: Sites = field(init=False)
    server: EnrolServer = field(init=False)

    def open(self) -> "Office":
        """Start, or start again, as `edge_hub.serve` does."""
        self.brokers.put_back()
        listening = bind_enrol(self.means.plan)
        url = enrol_url(self.means.plan, listening)
        self.means.equipment.refresh(self.clock.now_us)
        self.enrolment = Enrolment(self.store, self.brokers, self.means, url, self.clock.us, self.clock.monotonic)
        self.revoking = Revoking(self.store, self.brokers, self.clock.us, self.means.ledger, self.means.equipment)
        self.revoking.reconcile()
        self.sites = Sites(self.store, self.brokers, self.clock.us, self.revoking)
        self.server = EnrolServer(self.enrolment, listening)
        self.server.start()
        return self

    def close(self) -> None:
        self.server.close()

    def invite(self, *names: str, replace: bool = False, days: int = 7) -> list[dict[str, Any]]:
        """Register sites that join by themselves."""
        wanted: list[tuple[str, dict[str, str]]] = [(name, {}) for name in names]
        return self.sites.register_all(
            wanted, replace, "operator", lambda db, now_us, site: self.enrolment.invite(db, now_us, site, days)
        )

    def token(self, site: str, replace: bool = False, days: int = 7) -> str:
        return str(self.invite(site, replace=replace, days=days)[0]["join_token"])

    def group(self, name: str, count: int, **labels: str) -> str:
        made = self.enrolment.invite_group(name, count, labels, 7, replace=False, who="operator")
        return str(made["join_token"])

    def node(self, site: str, folder: str = "node") -> Node:
        return Node(self.folder / folder, self.enrolment.url, self.means.authority.root_pem.decode(), site)

    def joined(self, site: str) -> Node:
        """A site that has its first certificate."""
        node = self.node(site)
        assert node.join(self.token(site)).status == 200
        return node

    def certificates(self, site: str) -> list[Any]:
        with self.store.reading() as db:
            mine = select(certificates).where(certificates.c.site == site).order_by(certificates.c.issued_us)
            return list(db.execute(mine).all())

    def audited(self) -> list[tuple[str, dict[str, Any]]]:
        with self.store.reading() as db:
            return [(row.what, row.detail) for row in db.execute(select(audit).order_by(audit.c.id))]


@pytest.fixture
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    """Open, over SQLite or, where a test asks for it, PostgreSQL."""
    postgres = getattr(request, "param", None) == "postgresql"
    store = Store(request.getfixturevalue("postgres_url") if postgres else tmp_path / "hub.db")
    brokers = BrokerFolder(tmp_path / "broker")
    plan = EnrolPlan("127.0.0.1", 0, ("localhost", "127.0.0.1"), tmp_path / "ca", "mqtts://localhost:8883")
    means = Means(plan, make_authority(plan.authority, START_US), tmp_path, brokers)
    made = Office(tmp_path, store, brokers, means).open()
    yield made
    made.close()
    store.close()
