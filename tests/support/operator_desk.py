"""An operator's desk for tests: a real repository with keys in plain files, and a hub's half of trust beside it."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_hub.database.store import Store
from edge_hub.delivery.trust import Trust, packed_set
from edge_models.digests import Digest, digest_of
from edge_sync.release import Release
from edge_sync.signing import make_key
from edge_sync.trust.paths import parts_of
from edge_sync.trust.repository import Repository, Target

Api = Callable[..., Any]
"""`(method, path, json=…)`: a hub's API as its operator."""


def no_passphrase(_: str) -> None:
    """Keys in plain files."""


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.at = datetime(2027, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def us(self) -> int:
        """UTC microseconds."""
        return round(self.at.timestamp() * 1e6)


class Operator:
    """Who signs what may run."""

    def __init__(self, folder: Path, online: str, director: str, now: Callable[[], datetime] | None = None) -> None:
        """`folder` is a new one; keys as hex."""
        self.now = now or (lambda: datetime.now(UTC))
        self.folder = folder
        self.repository = Repository.create(folder, online, director, no_passphrase, self.now)
        self.root_file = folder / "metadata" / "1.root.json"
        """What a site file's `hub.root` names."""
        self.root = self.root_file.read_bytes()

    @classmethod
    def of_hub(cls, folder: Path, api: Api) -> "Operator":
        """The operator of a hub that has none yet; the hub holds its metadata then."""
        keys = api("GET", "/api/v1/trust")
        made = cls(folder, keys["online_key"], keys["director_key"])
        made.hand_over(api)
        return made

    def sign(self, release: Release, blobs: Mapping[Digest, bytes]) -> None:
        """All that the release needs, also what was withdrawn."""
        sizes = {str(digest): len(data) for digest, data in blobs.items()}
        self.repository.add(targets(release, sizes), no_passphrase, again=True)

    @property
    def texts(self) -> dict[str, str]:
        """All that was signed, as a hub is handed it: metadata by file name."""
        return {name: data.decode() for name, data in self.repository.files().items()}

    def hand_over(self, api: Api) -> None:
        """To a hub."""
        api("PUT", "/api/v1/trust", json={"files": self.texts})


class Desk:
    """An operator with a hub's half of trust that no hub runs: `packed` is what a broker would keep."""

    def __init__(self, folder: Path, now: Callable[[], datetime] | None = None, store: Store | None = None) -> None:
        """Makes what it needs in `folder`; the director's key is `folder/director.key`. `store`: a hub's database."""
        folder.mkdir(parents=True, exist_ok=True)
        clock = now or (lambda: datetime.now(UTC))
        self.director, self.online = folder / "director.key", folder / "online.key"
        director, online = make_key(self.director), make_key(self.online)
        self.operator = Operator(folder / "trust", online, director, now)
        self.root = self.operator.root
        self._store = store or Store(folder / "trust.db")
        self._owns_store = store is None
        self.told = 0
        """How often the hub's half said that what it publishes is new."""
        self.trust = Trust(self._store, self.online, director, self._tell, lambda: round(clock().timestamp() * 1e6))
        self.hand_over()

    def hand_over(self) -> bytes:
        """What the operator signed goes to the hub; returns what the hub publishes."""
        self.trust.take(self.operator.repository.files(), "operator")
        return self.packed()

    def sign(self, release: Release, blobs: Mapping[Digest, bytes]) -> bytes:
        """Sign all that the release needs; returns what the hub publishes."""
        self.operator.sign(release, blobs)
        return self.hand_over()

    def packed(self) -> bytes:
        """What the hub publishes."""
        with self._store.reading() as db:
            found = packed_set(db)
        assert found is not None
        return found

    def close(self) -> None:
        """Close its database, where it has one of its own."""
        if self._owns_store:
            self._store.close()

    def _tell(self) -> None:
        self.told += 1


def targets(release: Release, sizes: Mapping[str, int]) -> list[Target]:
    """What an operator signs of a release."""
    document = release.document.encode()
    made = [Target("agents", digest_of(document), len(document), f"release {release.release}")]
    for agent in release.agents:
        made += [Target(kind, digest, sizes[digest], agent.name) for kind, digest in parts_of(agent)]
    return made
