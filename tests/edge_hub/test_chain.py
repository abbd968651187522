"""sync/SPEC.md, Checkpoints, the hub: what does not fit is noted as it comes, and found in what is held."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, update

from edge_hub.broker import BrokerFolder
from edge_hub.database.schema import gaps, records, sites, streams
from edge_hub.database.store import Store, UnknownError
from edge_hub.ingest.journal import Arrived, store_batches
from edge_hub.records import chain as chain_module
from edge_hub.records import incidents
from edge_hub.records.accounts import Accounts
from edge_hub.records.chain import Report, verify_site
from edge_hub.records.checkpoints import MAX_A_BATCH
from edge_hub.records.tombstones import bury, runs
from edge_hub.records.words import word_of_hello
from edge_hub.sites import Sites
from edge_sync.batch import decode, encode
from edge_sync.checkpoint import End, Ends, sign
from edge_sync.documents import EpochState, Hello
from edge_sync.rows import ERASED, Lane, Row, chain, chain_start, row_bytes

EPOCH = "00000000000000aa"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


class Site:
    """A site that writes two lanes, signs now and then, and delivers everything at once."""

    def __init__(self, store: Store, name: str = "plant-01", epoch: str = EPOCH) -> None:
        self.store, self.name, self.epoch = store, name, epoch
        self.key = KEY
        self.raws: dict[Lane, list[bytes]] = {"decision": [], "telemetry": []}
        self.hashes = {lane: [chain_start(epoch, lane)] for lane in self.raws}
        self.sent = dict.fromkeys(self.raws, 0)
        with store.writing() as db:
            if db.scalar(select(sites.c.site).where(sites.c.site == name)) is None:
                db.execute(sites.insert().values(site=name, labels={}, created_us=1, online=False))

    def write(self, count: int, lane: Lane = "telemetry", **changed: Any) -> "Site":
        """Write `count` rows."""
        for _ in range(count):
            seq = len(self.raws[lane]) + 1
            fields: dict[str, Any] = {"at": 1_800_000_000_000_000 + seq, "kind": "event", "agent": "press"}
            fields |= {"subject": "p-1", "label": "ok", "score": 0.25, "ref": None, "body": f'{{"n":{seq}}}'}
            raw = row_bytes(Row(seq=seq, **fields | changed))
            self.raws[lane].append(raw)
            self.hashes[lane].append(chain(self.hashes[lane][-1], raw))
        return self

    def sign(self, before: Ends | None = None, **changed: Any) -> "Site":
        """Write a checkpoint of all that was written; `changed` is put into its body behind the signature."""
        public = self.key.public_key().public_bytes_raw().hex()
        body = json.loads(sign(self.name, self.ends(), before, 5, public, self.key.sign)) | changed
        return self.write(1, "decision", agent="site", label="checkpoint", body=json.dumps(body))

    def ends(self) -> Ends:
        """Where its lanes end."""
        streams = {lane: End(len(raws), self.hashes[lane][-1].hex()) for lane, raws in self.raws.items() if raws}
        return Ends(self.epoch, 1, streams)

    def deliver(self, lanes: Sequence[Lane] = ("telemetry", "decision")) -> "Site":
        """Hand over what was not, lane by lane."""
        for lane in lanes:
            first, last = self.sent[lane] + 1, len(self.raws[lane])
            if last < first:
                continue
            ends = (self.hashes[lane][first - 1], self.hashes[lane][last])
            message = encode(self.epoch, lane, self.raws[lane][first - 1 :], [], (first, last), ends)
            with self.store.writing() as db:
                stored = store_batches(db, [Arrived(self.name, decode(message), message)], 7)
            assert [ack.seq for ack in stored.acks.values()] == [last]
            self.sent[lane] = last
        return self

    def let_go(self, first: int, last: int) -> None:
        """Have the hub erase rows of telemetry."""
        key = (self.name, self.epoch, "telemetry")
        found = [(key, seq, self.hashes["telemetry"][seq]) for seq in range(first, last + 1)]
        with self.store.writing() as db:
            bury(db, list(runs(found)), ERASED, 9)

    def incidents(self) -> list[tuple[str, str, int]]:
        """Key, reason and times of each."""
        with self.store.reading() as db:
            found = incidents.listed(db, self.name, 100)
        assert {each["what"] for each in found} <= {"checkpoint"}
        return [(each["key"], each["detail"]["reason"], each["times"]) for each in found]

    def verify(self) -> Report:
        """As the hub does."""
        return verify_site(self.store, self.name)

    def found(self) -> list[tuple[str, int, str]]:
        """Lane, number and words."""
        return [(each.lane, each.seq, each.what) for each in self.verify().findings]


@pytest.fixture
def site(store: Store) -> Site:
    """Forty rows of telemetry, signed at 20 and at 40."""
    return Site(store).write(20).sign().write(20).sign().deliver()


ONLY_SQLITE = ("zeroblob", "x'", "'seven'", "'none'", "'text'", "='x'")
"""Values that other databases do not take into these columns at all."""


@pytest.fixture
def change(store: Store) -> Callable[..., None]:
    """Changes the hub's tables behind its back."""

    def execute(*statements: str) -> None:
        if not isinstance(store.database, Path) and any(each in "".join(statements) for each in ONLY_SQLITE):
            pytest.skip("only SQLite holds such a value in this column")
        with store.writing() as db:
            for statement in statements:
                db.exec_driver_sql(statement)

    return execute


def test_what_is_held_as_it_came_has_no_findings(site: Site) -> None:
    report = site.verify()
    assert (report.findings, report.checkpoints) == ((), 2)
    assert [(each.lane, each.high, each.rows, each.lost) for each in report.streams] == [
        ("decision", 2, 2, 0),
        ("telemetry", 40, 40, 0),
    ]
    assert report.streams[1].hash == site.hashes["telemetry"][40]
    assert site.incidents() == []


def test_a_site_that_is_not_registered_is_none(store: Store) -> None:
    with pytest.raises(UnknownError, match="plant-09"):
        verify_site(store, "plant-09")


def test_the_first_key_that_comes_is_the_sites(site: Site, store: Store) -> None:
    with store.reading() as db:
        held = db.scalar(select(sites.c.journal_key))
    assert held == KEY.public_key().public_bytes_raw().hex()


def test_another_key_is_an_incident_counted_and_found(site: Site) -> None:
    site.key = OTHER
    site.write(1).sign().write(1).sign().deliver()
    ((key, reason, times),) = site.incidents()
    assert (key, times) == (OTHER.public_key().public_bytes_raw().hex(), 2)
    assert reason.startswith("it is signed with another key than this site's")
    assert {what.split(" the key ")[0] for _, _, what in site.found()} == {"the checkpoint is signed with"}


def test_a_site_that_is_registered_anew_may_have_a_new_key(site: Site, store: Store, tmp_path: Path) -> None:
    """What the old key signed before stays signed; it may not come back."""
    Sites(store, BrokerFolder(tmp_path / "broker"), lambda: 8).register("plant-01", {}, replace=True, who="test")
    later = Site(store, epoch="00000000000000bb")
    later.key = OTHER
    later.write(1).sign().deliver()
    assert (site.incidents(), site.found()) == ([], [])
    back = Site(store, epoch="00000000000000cc").write(1).sign().deliver()
    assert [times for _, _, times in back.incidents()] == [1]
    assert [what.split(" the key ")[0] for _, _, what in back.found()] == ["from here, checkpoints are signed with"]


@pytest.fixture
def told(store: Store) -> Callable[..., None]:
    """The site says which epochs it has, oldest first."""

    def tell(*names: str) -> None:
        states = [
            EpochState(epoch=name, order=order, last={"decision": 99, "telemetry": 99})
            for order, name in enumerate(names, 1)
        ]
        with store.writing() as db:
            Accounts().take(db, "plant-01", word_of_hello(Hello(sync="s", epochs=states), False), 7)

    return tell


A, B, C, D = (f"00000000000000{each}" for each in ("aa", "bb", "cc", "dd"))


def test_what_a_new_machine_brings_of_the_old_one_is_signed_with_the_old_ones_key(
    store: Store, told: Callable[..., None], tmp_path: Path
) -> None:
    """Part of epoch aa and all of bb were never delivered: the backup brings them, after the new key was pinned."""
    told(A, B)
    before = Site(store, epoch=A).write(1).sign().deliver()
    offline = Site(store, epoch=B).sign().write(1).sign()
    Sites(store, BrokerFolder(tmp_path / "broker"), lambda: 8).register("plant-01", {}, replace=True, who="test")
    told(A, B, C)
    before.write(1).sign().deliver()
    with store.reading() as db:
        assert db.scalar(select(sites.c.journal_key)) is None, "the old machine's is not taken for the new one's"
    new = Site(store, epoch=C)
    new.key = OTHER
    new.write(1).sign().deliver()
    offline.deliver()
    before.write(1).sign().deliver()
    with store.reading() as db:
        assert db.scalar(select(sites.c.journal_key)) == OTHER.public_key().public_bytes_raw().hex()
    assert (new.incidents(), new.found()) == ([], [])


def test_an_old_key_that_begins_an_epoch_after_the_new_one_is_an_incident(
    store: Store, told: Callable[..., None], tmp_path: Path
) -> None:
    told(A, B, C, D)
    Site(store, epoch=A).sign().deliver()
    with store.writing() as db:
        db.execute(sites.update().values(journal_key=OTHER.public_key().public_bytes_raw().hex()))
    new = Site(store, epoch=B)
    new.key = OTHER
    new.sign().deliver()
    assert new.incidents() == []
    stolen = Site(store, epoch=D).sign().deliver()
    assert [times for _, _, times in stolen.incidents()] == [1]


def test_a_forged_signature_is_an_incident_and_what_came_is_held(site: Site) -> None:
    site.sign(order=7).deliver()
    assert site.incidents() == [(EPOCH, "its signature does not hold", 1)]
    assert site.found() == [("decision", 3, "the checkpoint can't be believed: its signature does not hold")]
    assert site.verify().streams[0].high == 3


@pytest.mark.parametrize("body", ["", "{}", "[]", "null", '{"v":1}', "\ud7ff", "[" * 60_000])
def test_a_body_that_is_no_checkpoint_is_an_incident_and_blocks_nothing(site: Site, body: str) -> None:
    site.write(1, "decision", agent="site", label="checkpoint", body=body).deliver()
    ((_, reason, _),) = site.incidents()
    assert reason.startswith("it is no checkpoint")


def test_a_checkpoint_of_another_site_is_an_incident(store: Store) -> None:
    other = Site(store, "plant-02").write(1).sign()
    site = Site(store).write(1)
    site.write(1, "decision", agent="site", label="checkpoint", body=json.loads(json.dumps(_body(other)))).deliver()
    assert site.incidents() == [(EPOCH, "it is of site plant-02", 1)]
    assert [what for _, _, what in site.found()] == ["the checkpoint is not this site's: it is of plant-02"]


def _body(site: Site) -> str:
    public = site.key.public_key().public_bytes_raw().hex()
    return sign(site.name, site.ends(), None, 5, public, site.key.sign)


def test_a_record_of_an_agent_named_like_a_checkpoint_is_none(site: Site) -> None:
    site.write(1, "decision", label="checkpoint").deliver()
    assert site.incidents() == []
    assert site.verify().checkpoints == 2


def test_records_that_are_not_those_signed_are_an_incident_and_found(store: Store) -> None:
    site = Site(store).write(3)
    site.sign(streams={}).raws["decision"].clear()
    del site.hashes["decision"][1:]
    honest = site.ends()
    lied = Ends(EPOCH, 1, {"telemetry": End(3, "ab" * 32)})
    public = KEY.public_key().public_bytes_raw().hex()
    body = sign("plant-01", lied, None, 5, public, KEY.sign)
    site.write(1, "decision", agent="site", label="checkpoint", body=body).deliver()
    ((key, reason, _),) = site.incidents()
    assert (key, reason) == (f"{EPOCH}:telemetry", f"records up to {EPOCH}:telemetry:3 are not those it names")
    assert honest.streams["telemetry"].seq == 3
    assert [(lane, seq) for lane, seq, _ in site.found()] == [("telemetry", 3)]


def test_what_it_names_and_is_not_here_yet_is_no_incident(store: Store) -> None:
    site = Site(store).write(30).sign().deliver(["decision"])
    assert (site.incidents(), site.found()) == ([], [])
    site.deliver()
    assert (site.incidents(), site.found()) == ([], [])


def test_an_epoch_is_held_to_what_the_next_one_signed_of_it(store: Store, site: Site) -> None:
    ends = Ends(EPOCH, 1, {"telemetry": End(40, "ab" * 32)})
    later = Site(store, epoch="00000000000000bb").sign(before=ends).deliver()
    assert [key for key, _, _ in later.incidents()] == [f"{EPOCH}:telemetry"]
    assert [(each.epoch, each.lane, each.seq) for each in later.verify().findings] == [(EPOCH, "telemetry", 40)]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", "at+1"),
        ("kind", "'decision'"),
        ("agent", "'other'"),
        ("subject", "NULL"),
        ("label", "CAST(x'ff' AS TEXT)"),
        ("score", "0.5"),
        ("score", "'none'"),
        ("ref", "''"),
        ("body", "body||' '"),
        ("body", "x'7b7d'"),
        ("hash", "zeroblob(32)"),
        ("hash", "'text'"),
    ],
)
def test_a_flipped_column_is_found_at_its_row(site: Site, change: Any, column: str, value: str) -> None:
    change(f"UPDATE records SET {column}={value} WHERE lane='telemetry' AND seq=7")
    assert site.found()[0] == ("telemetry", 7, "the row is not what was written, or follows another")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM records WHERE lane='telemetry' AND seq=7",
        "UPDATE records SET seq='seven' WHERE lane='telemetry' AND seq=7",
        "UPDATE records SET seq=70 WHERE lane='telemetry' AND seq=7",
        "UPDATE records SET lane='fast' WHERE lane='telemetry' AND seq=7",
        "UPDATE records SET site='plant-02' WHERE lane='telemetry' AND seq=7",
    ],
)
def test_a_row_that_is_gone_is_missed_where_it_was(site: Site, change: Any, statement: str) -> None:
    change(statement)
    assert ("telemetry", 7, "rows 7 to 7 are missing, no gap says so") in site.found()


def test_a_row_moved_to_a_stream_nobody_knows_is_found_there_too(site: Site, change: Any) -> None:
    change("UPDATE records SET lane='fast' WHERE lane='telemetry' AND seq=7")
    assert ("fast", 7, "records are held of a stream that this hub has not heard of") in site.found()


def test_two_rows_that_changed_places_are_both_found(site: Site, change: Any) -> None:
    change(
        "UPDATE records SET seq=-7 WHERE lane='telemetry' AND seq=7",
        "UPDATE records SET seq=7 WHERE lane='telemetry' AND seq=8",
        "UPDATE records SET seq=8 WHERE lane='telemetry' AND seq=-7",
    )
    assert {seq for _, seq, _ in site.found()} >= {7, 8}


def test_a_forgery_whose_hashes_were_all_made_anew_is_found_by_what_was_signed(site: Site, store: Store) -> None:
    with store.writing() as db:
        db.execute(update(records).where(records.c.lane == "telemetry", records.c.seq == 25).values(label="fine"))
        at_hash = site.hashes["telemetry"][24]
        mine = select(records).where(records.c.lane == "telemetry", records.c.seq >= 25).order_by(records.c.seq)
        for row in db.execute(mine).all():
            fields = (row.seq, row.at, row.kind, row.agent, row.subject, row.label, row.score, row.ref, row.body)
            at_hash = chain(at_hash, row_bytes(Row(*fields)))
            here = (records.c.lane == "telemetry") & (records.c.seq == row.seq)
            db.execute(update(records).where(here).values(hash=at_hash))
        db.execute(update(streams).where(streams.c.lane == "telemetry").values(hash=at_hash))
    assert site.found() == [("telemetry", 40, f"rows 21 to 40 are not those that checkpoint {EPOCH}:decision:2 signed")]


def test_a_tail_that_is_gone_is_missed(site: Site, change: Any) -> None:
    change("DELETE FROM records WHERE lane='telemetry' AND seq>35")
    assert site.found() == [("telemetry", 36, "rows 36 to 40 are missing, no gap says so")]


def test_an_end_that_was_moved_is_found(site: Site, change: Any) -> None:
    change("UPDATE streams SET high=35 WHERE lane='telemetry'")
    assert site.found() == [("telemetry", 36, "rows 36 to 40 are held, and the stream's end is noted at 35")]
    change(
        "UPDATE streams SET high=40, hash=(SELECT hash FROM records WHERE lane='telemetry' AND seq=1)"
        " WHERE lane='telemetry'"
    )
    assert site.found() == [("telemetry", 40, "the hash noted for the stream's end is not that of its last row or gap")]


def test_what_was_let_go_with_a_gap_is_no_finding_even_between_two_slices(
    site: Site, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_module, "SLICE_ROWS", 10)
    looks, read = 0, store.reading

    def reading() -> Any:
        nonlocal looks
        looks += 1
        for first, last in {1: [(2, 3)], 4: [(8, 13)], 5: [(20, 24), (40, 40)]}.get(looks, []):
            site.let_go(first, last)
        return read()

    monkeypatch.setattr(store, "reading", reading)
    report = site.verify()
    assert report.findings == ()
    assert looks > 5
    with read() as db:
        assert len(db.execute(select(gaps)).all()) == 4


@pytest.mark.parametrize(
    "damage", ["last=8", "first=8", "hash=zeroblob(32)", "hash='x'", "last='x'", "lane='fast'", "epoch='0'"]
)
def test_a_gap_that_was_changed_is_found(site: Site, change: Any, damage: str) -> None:
    site.let_go(7, 9)
    assert site.found() == []
    change(f"UPDATE gaps SET {damage}")
    assert site.found() != []


def test_what_is_wrong_throughout_is_counted(store: Store) -> None:
    site = Site(store).write(1500).deliver()
    with store.writing() as db:
        db.execute(update(records).values(label="x"))
    findings = site.verify().findings
    assert (len(findings), findings[-1].what) == (1001, "and 500 more")


NASTY: list[dict[str, Any]] = [
    {"score": 0.0},
    {"score": 0.1 + 0.2},
    {"score": 5e-324},
    {"score": 1.0},
    {"score": None, "subject": None, "label": None},
    {"subject": "", "label": "", "ref": ""},
    {"subject": "Größe 🦆 \u2028 x", "label": "e\u0301"},
    {"at": 0},
    {"at": 2**63 - 1},
    {"body": ""},
    {"body": json.dumps({"big": 10**40, "deep": [[[1e308]]]}, ensure_ascii=False)},
    {"body": "x" * 65_536},
]


@pytest.mark.parametrize("fields", NASTY)
def test_the_tables_give_back_the_very_bytes_that_were_hashed(store: Store, fields: dict[str, Any]) -> None:
    site = Site(store).write(1, "decision", **fields).deliver()
    assert site.found() == []
    with store.reading() as db:
        row = db.execute(select(records)).one()
    held = Row(row.seq, row.at, row.kind, row.agent, row.subject, row.label, row.score, row.ref, row.body)
    assert row_bytes(held) == site.raws["decision"][0]


def test_of_very_many_checkpoints_in_one_batch_the_newest_are_looked_at(store: Store) -> None:
    site = Site(store).write(3)
    for _ in range(MAX_A_BATCH):
        site.sign(sig="00" * 64)
    site.sign().sign().deliver()
    ((key, _, times),) = site.incidents()
    assert (key, times) == (EPOCH, MAX_A_BATCH - 2)
    assert sum("signature does not hold" in what for *_, what in site.found()) == MAX_A_BATCH
