"""A site's journal against its hub's books: what is missing, what differs, what does not add up."""

from typing import Any

from edge_cluster.books import Held, Journal, differences, forgotten, held, journal, missing, note

EPOCH = "66b8850bbe06a2c6"
JOURNAL = journal({"id": f"{EPOCH}:decision:{seq}", "hash": f"{seq:064x}"} for seq in (1, 2, 3, 4))
KEY = (EPOCH, "decision")


def books(high: int, **changed: Any) -> dict[tuple[str, str], Held]:
    stream = {"epoch": EPOCH, "lane": "decision", "high": high, "hash": f"{high:064x}", "rows": high, "lost": 0}
    return held({"streams": [stream | changed]})


def test_books_that_hold_all_are_in_order() -> None:
    assert missing(JOURNAL, books(4)) == 0
    assert differences(JOURNAL, books(4)) == []


def test_a_hub_that_has_more_than_the_site_still_holds_is_in_order() -> None:
    assert differences(JOURNAL, books(9)) == []


def test_records_on_their_way_are_counted() -> None:
    assert missing(JOURNAL, books(1)) == 3
    assert missing(JOURNAL, {}) == 4
    assert differences(JOURNAL, books(2)) == [f"{EPOCH}:decision: 2 records from 3 on are not at the hub"]


def test_a_run_of_the_site_that_the_hub_never_heard_of_is_found() -> None:
    assert differences(JOURNAL, {}) == [f"{EPOCH}:decision: the hub has nothing of 4 records"]


def test_other_records_than_the_sites_are_found() -> None:
    assert differences(JOURNAL, books(4, hash="f" * 64)) == [
        f"{EPOCH}:decision: up to 4 the hub has other records than the site"
    ]


def test_a_number_that_is_neither_a_record_nor_in_a_gap_is_found() -> None:
    assert differences(JOURNAL, books(4, rows=2, lost=1)) == [
        f"{EPOCH}:decision: 4 numbers, but 2 records and 1 in gaps"
    ]
    assert differences(JOURNAL, books(4, rows=3, lost=1)) == []


def test_what_a_journal_held_once_is_remembered_and_missed() -> None:
    seen: Journal = {}
    note(seen, JOURNAL)
    later = journal({"id": f"{EPOCH}:decision:{seq}", "hash": f"{seq:064x}"} for seq in (3, 4, 5))
    note(seen, later)
    assert sorted(seen[KEY]) == [1, 2, 3, 4, 5]
    assert forgotten(seen, later) == 2
    assert forgotten(seen, {}) == 5
    assert forgotten(seen, seen) == 0
    assert missing(seen, books(4)) == 1
