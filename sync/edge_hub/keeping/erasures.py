"""The list of what was erased, kept beside the database: an older backup brings those records back.

A line a subject, as JSON: the site, the sha256 of site and subject, and when. It names nobody.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_hub.files import write_private
from edge_models.errors import ConfigError

ERASURES = "erasures.jsonl"


@dataclass(frozen=True, slots=True)
class Erasure:
    """What a site held of one subject until `at_us` is gone."""

    site: str
    sha256: str
    at_us: int


def subject_sha256(site: str, subject: str) -> str:
    """What stands for a subject of a site where its name may not."""
    return hashlib.sha256(f"{site}\n{subject}".encode()).hexdigest()


def note(folder: Path, erasure: Erasure) -> None:
    """Add a line, durably."""
    line = json.dumps(asdict(erasure), separators=(",", ":")).encode() + b"\n"
    path = folder / ERASURES
    write_private(path, (path.read_bytes() if path.exists() else b"") + line)


def noted(folder: Path) -> list[Erasure]:
    """All of them, oldest first. Raises `ConfigError` where the file is damaged."""
    path = folder / ERASURES
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            found.append(Erasure(**json.loads(line)))
        except (ValueError, TypeError):
            raise ConfigError(f"{path}: line {number} is no erasure: repair it, or take it out") from None
    return found
