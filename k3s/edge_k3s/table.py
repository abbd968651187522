"""A table of sites: CSV as a spreadsheet saves it, with a column `site` and one column a label.

site,kind,line
plant-01,factory,3a
shop-17,shop,
"""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from edge_k3s.names import check_labels, check_site
from edge_models.errors import ConfigError, RejectedError
from edge_sync.topics import site_id

SITE = "site"
_SEPARATORS = (",", ";", "\t")
"""A spreadsheet writes the one that its country uses."""


@dataclass(frozen=True, slots=True)
class Row:
    """A site to be."""

    site: str
    labels: Mapping[str, str]


def read_table(path: Path) -> list[Row]:
    """The sites, in their order. An empty cell is no label; empty lines, and those that begin with #, do not count.

    Raises `ConfigError` with file and line for what is wrong, and says how many more mistakes there are.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no UTF-8 text: save it as CSV UTF-8") from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if _counts(line)]
    if not lines:
        raise ConfigError(f"{path}: is empty: wanted a line with `site` and label keys, then a line a site")
    separator = next((each for each in _SEPARATORS if each in lines[0][1]), ",")
    rows = [(number, _cells(line, separator)) for number, line in lines]
    keys = _header(path, *rows[0])
    found: dict[str, Row] = {}
    mistakes: list[str] = []
    for number, cells in rows[1:]:
        try:
            row = _row(keys, cells)
            if row.site in found:
                raise ConfigError(f"site {row.site} stands twice: two kits with one id would disturb each other")
            found[row.site] = row
        except ConfigError as error:
            mistakes.append(f"{path} line {number}: {error}")
    if mistakes:
        more = f" (and {len(mistakes) - 1} more lines are wrong)" if len(mistakes) > 1 else ""
        raise ConfigError(mistakes[0] + more)
    if not found:
        raise ConfigError(f"{path}: has a header and no sites")
    return list(found.values())


def check_keys(keys: Iterable[str], known: Iterable[str]) -> None:
    """Raises `ConfigError` for a label key that nobody knows, once any is known: it is likelier mistyped than new."""
    known = sorted(set(known))
    if not known:
        return
    for key in keys:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"label key {key!r} is new: {hint}the release and the sites at the hub use {', '.join(known)} "
                f"(--label-key {key} allows it)"
            )


def _counts(line: str) -> bool:
    return bool(line.strip(" \t,;")) and not line.startswith("#")


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader(io.StringIO(line), delimiter=separator))]


def _header(path: Path, number: int, cells: list[str]) -> list[str]:
    while cells and not cells[-1]:
        cells.pop()
    if SITE not in cells:
        raise ConfigError(f"{path} line {number}: no column is named `site`; there are: {', '.join(cells)}")
    for key in cells:
        if cells.count(key) > 1:
            raise ConfigError(f"{path} line {number}: two columns are named {key!r}")
        try:
            check_labels({key: "x"})
        except ConfigError as error:
            raise ConfigError(f"{path} line {number}: {error}") from None
    return cells


def _row(keys: list[str], cells: list[str]) -> Row:
    while len(cells) > len(keys) and not cells[-1]:
        cells.pop()
    if len(cells) > len(keys):
        raise ConfigError(f"{len(cells)} cells, where the header has {len(keys)}")
    values = dict(zip(keys, cells, strict=False))
    site = values.pop(SITE, "")
    check_site(site)
    try:
        site_id(site)
    except RejectedError as error:
        raise ConfigError(str(error)) from None
    labels = {key: value for key, value in values.items() if value}
    check_labels(labels)
    return Row(site, labels)
