"""An oracle that cannot find a fault proves nothing: each fault, planted by hand in one place, is found."""

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

Oracle = Callable[[list[Path], Path, str], list[str]]

EPOCH = "0123456789abcdef"
COLUMNS = "epoch, lane, seq, at, kind, agent, subject, label, score, ref, body, hash"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A site's disk: three decisions, the first two with their actions, the third an open intent."""
    path = tmp_path / "memory.db"
    digest = hashlib.sha256(f"edge/v1 {EPOCH} decision".encode()).digest()
    rows = []
    for seq in range(1, 6):
        decides = seq % 2 == 1
        ref = None if decides else f"{EPOCH}:decision:{seq - 1}"
        body = '{"do":{"tool":"alert"}}' if decides else '{"status":"done"}'
        row = (
            seq,
            1_700_000_000_000_000 + seq,
            "decision" if decides else "action",
            "watch",
            None,
            "ok",
            0.5,
            ref,
            body,
        )
        digest = hashlib.sha256(digest + msgspec.msgpack.encode(row)).digest()
        rows.append((EPOCH, "decision", *row, digest))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"CREATE TABLE journal ({COLUMNS})")
        db.executemany(f"INSERT INTO journal VALUES ({','.join('?' * 12)})", rows)
        db.execute("CREATE TABLE gaps (epoch, lane, first, last, reason)")
        db.execute("CREATE TABLE intents (decision)")
        db.execute("INSERT INTO intents VALUES (?)", (f"{EPOCH}:decision:5",))
    return path


@pytest.fixture
def hub_database(disk: Path, tmp_path: Path) -> Path:
    """A hub that has all of it."""
    path = tmp_path / "hub.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("ATTACH ? AS disk", (str(disk),))
        db.execute("CREATE TABLE records AS SELECT 'plant-01' AS site, * FROM disk.journal")
        db.execute("CREATE TABLE gaps (epoch, lane, first, last, reason)")
        db.execute(
            "CREATE TABLE streams AS SELECT site, epoch, lane, seq AS high, hash, 0 AS forked FROM records WHERE seq=5"
        )
    return path


def test_where_nothing_is_wrong_nothing_is_found(oracle: Oracle, disk: Path, hub_database: Path) -> None:
    assert oracle([disk], hub_database, "plant-01") == []


@pytest.mark.parametrize(
    ("where", "statement", "what"),
    [
        ("hub", "DELETE FROM records WHERE seq=3", "lost: "),
        ("hub", "DELETE FROM records WHERE seq=3", "a hole at the hub"),
        ("hub", "INSERT INTO records SELECT * FROM records WHERE seq=2", "holds a record twice"),
        ("hub", "UPDATE records SET label='drop' WHERE seq=4", "not the same at the hub"),
        ("hub", "UPDATE records SET at=at+1 WHERE seq=4", "the chain breaks at the hub"),
        ("hub", "UPDATE records SET hash=zeroblob(32) WHERE seq=5", "not the same at the hub"),
        ("hub", "UPDATE records SET lane='alarm' WHERE seq=5", "written by nobody"),
        ("hub", "UPDATE streams SET high=4", "beyond high"),
        ("hub", "UPDATE streams SET high=6", "a hole at the hub"),
        ("hub", "UPDATE streams SET hash=zeroblob(32)", "end of the chain is another"),
        ("hub", "UPDATE streams SET forked=1", "forked"),
        ("hub", "DELETE FROM streams", "records of no stream"),
        ("hub", "INSERT INTO gaps VALUES ('e', 'alarm', 1, 2, 'evicted')", "given up"),
        ("disk", "INSERT INTO gaps VALUES ('e', 'alarm', 1, 2, 'evicted')", "given up"),
        ("disk", "DELETE FROM intents", "neither done nor open"),
        ("disk", f"INSERT INTO intents VALUES ('{EPOCH}:decision:1')", "done, and still open"),
        ("disk", "UPDATE journal SET ref=(SELECT ref FROM journal WHERE seq=2) WHERE seq=4", "done 2 times"),
        ("disk", "DELETE FROM journal", "nothing was decided"),
    ],
)
def test_each_planted_fault_is_found(
    oracle: Oracle, disk: Path, hub_database: Path, where: str, statement: str, what: str
) -> None:
    with closing(sqlite3.connect(disk if where == "disk" else hub_database)) as db, db:
        db.execute(statement)
    assert any(what in each for each in oracle([disk], hub_database, "plant-01"))
