"""How commands speak."""

import pytest
from rich.table import Table

from edge_cli.output import data, show_table


def test_a_table_is_as_wide_as_it_needs_to_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_width", 40)
    site = "a-site-with-a-name-of-63-characters-" + "x" * 27
    table = Table(box=None, pad_edge=False)
    for name in ("SITE", "STATE", "HEARD"):
        table.add_column(name, no_wrap=True)
    table.add_row(site, "active", "17 s ago")
    show_table(table)
    head, row = capsys.readouterr().out.splitlines()
    assert row.split("  ") == [site, "active", "17 s ago"]
    assert head.split() == ["SITE", "STATE", "HEARD"]
