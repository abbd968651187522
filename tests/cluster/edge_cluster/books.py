"""Whether every record that a site has is at its hub: the site's journal against the hub's books.

A stream's hash at its end covers all before it, so that one hash compared is every record compared; that the hub's
rows do make that hash is the hub's own `verify`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Stream = tuple[str, str]
"""Epoch and lane."""

Journal = dict[Stream, dict[int, str]]
"""Stream → number → hash."""


@dataclass(frozen=True, slots=True)
class Held:
    """A stream as the hub holds it: up to `high` every number is one of `rows` records or `lost` in gaps."""

    high: int
    hash: str
    rows: int
    lost: int


def journal(records: Iterable[Mapping[str, Any]]) -> Journal:
    """Of records as `memory tail --json` shows them."""
    found: Journal = {}
    for each in records:
        epoch, lane, seq = each["id"].split(":")
        found.setdefault((epoch, lane), {})[int(seq)] = each["hash"]
    return found


def note(seen: Journal, now: Journal) -> None:
    """Add to all that was ever seen of a site's journal what it holds now."""
    for stream, numbers in now.items():
        seen.setdefault(stream, {}).update(numbers)


def forgotten(seen: Journal, now: Journal) -> int:
    """How many records the journal held, and no longer does."""
    return sum(seq not in now.get(stream, {}) for stream, numbers in seen.items() for seq in numbers)


def held(verified: Mapping[str, Any]) -> dict[Stream, Held]:
    """Of the hub's answer to `/api/v1/sites/SITE/verify`."""
    return {
        (each["epoch"], each["lane"]): Held(each["high"], each["hash"], each["rows"], each["lost"])
        for each in verified["streams"]
    }


def missing(site: Journal, hub: Mapping[Stream, Held]) -> int:
    """How many of the site's records are still to come."""
    ends = {stream: each.high for stream, each in hub.items()}
    return sum(seq > ends.get(stream, 0) for stream, numbers in site.items() for seq in numbers)


def differences(site: Journal, hub: Mapping[Stream, Held]) -> list[str]:
    """What of the site's journal is not at the hub as it was written, and what of the hub's books does not add up."""
    found = []
    for (epoch, lane), numbers in sorted(site.items()):
        where, theirs = f"{epoch}:{lane}", hub.get((epoch, lane))
        if theirs is None:
            found.append(f"{where}: the hub has nothing of {len(numbers)} records")
            continue
        if late := [seq for seq in numbers if seq > theirs.high]:
            found.append(f"{where}: {len(late)} records from {min(late)} on are not at the hub")
        if theirs.high in numbers and numbers[theirs.high] != theirs.hash:
            found.append(f"{where}: up to {theirs.high} the hub has other records than the site")
    for (epoch, lane), each in sorted(hub.items()):
        if each.rows + each.lost != each.high:
            found.append(f"{epoch}:{lane}: {each.high} numbers, but {each.rows} records and {each.lost} in gaps")
    return found
