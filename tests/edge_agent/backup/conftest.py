"""Sites with a memory that real journals wrote, stopped or running."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from edge_agent.config import Site, load_site
from edge_agent.memory.checkpoint import KEY_FILE, Checkpointer
from edge_agent.memory.draft import Draft, Fact, Intent, to_body
from edge_agent.memory.journal import Journal

NOW_US = 1_800_000_000_000_000


@dataclass
class Kept:
    """A site's file and folder."""

    file: Path

    @property
    def site(self) -> Site:
        return load_site(self.file)

    @property
    def data(self) -> Path:
        return self.site.data

    @property
    def memory(self) -> Path:
        return self.data / "memory.db"

    def journal(self) -> Journal:
        """A process of the site's that writes."""
        return Journal(self.memory, 64, lambda: NOW_US)

    def live(self, rows: int = 40, open_acts: int = 2) -> None:
        """One start of the site, which decides, sets a fact, leaves acts open, signs and ends."""
        journal = self.journal()
        checkpoints = Checkpointer(journal, self.site.config.site, self.data / KEY_FILE, lambda: NOW_US)
        for n in range(rows):
            journal.write(
                [Draft("telemetry", "prediction", "press", NOW_US + n, to_body({"n": n}), "p-1", "ok", n / rows)]
            )
        decided = [
            Draft("decision", "decision", "press", NOW_US, to_body({"do": n}), "p-1", "stop",
                  intent=Intent("mqtt.publish", "{}", NOW_US + 60_000_000))
            for n in range(open_acts)
        ]  # fmt: skip
        fact = Draft("decision", "fact", "press", NOW_US, "{}", "p-1", "seen", fact=Fact("seen", '"spike"', None))
        journal.write([*decided, fact])
        checkpoints.note(0.0)
        journal.close()


@pytest.fixture
def make_site(tmp_path: Path) -> Callable[..., Kept]:
    """Makes sites, each in a folder of its own."""

    def make(name: str = "plant-01", folder: str = "here", **more: object) -> Kept:
        home = tmp_path / folder
        home.mkdir()
        (home / "site.yaml").write_text(yaml.safe_dump({"site": name, "data": "data", **more}))
        return Kept(home / "site.yaml")

    return make


@pytest.fixture
def kept(make_site: Callable[..., Kept]) -> Kept:
    """A site that ran once."""
    made = make_site()
    made.live()
    return made
