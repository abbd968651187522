"""What sites say they hold, and what follows from it. Held: sync/SPEC.md, section Accounts."""

from typing import Any

import pytest
from sqlalchemy import event, select

from edge_hub.database.schema import epochs, sites, streams
from edge_hub.database.store import Store
from edge_hub.ingest.journal import Arrived, Poison, store_batches
from edge_hub.records import audit, incidents, losses, registry
from edge_hub.records.accounts import Accounts
from edge_hub.records.words import Word, word_of_heartbeat, word_of_hello
from edge_sync.batch import decode
from edge_sync.documents import EPOCHS_PER_PAGE, EpochState, Heartbeat, Hello, Presence

NOW = 1_800_000_000_000_000
A, B, C, D = (f"{n:016x}" for n in (10, 11, 12, 13))
Said = dict[str, int]


def state(epoch: str, order: int, **last: int) -> EpochState:
    return EpochState(epoch=epoch, order=order, last=last)  # type: ignore[arg-type]


class Book:
    """A hub's accounts of one site, whose heartbeats come one after the other."""

    def __init__(self, store: Store) -> None:
        self.store, self.accounts, self.now_us, self._said_us = store, Accounts(), NOW, 0

    def take(self, word: Word) -> dict[tuple[str, Any], int]:
        with self.store.writing() as db:
            self.now_us += 1
            return dict(self.accounts.take(db, "plant-01", word, self.now_us))

    def beat(self, *states: EpochState, after: int = 0, retained: bool = False, again: bool = False) -> None:
        """A heartbeat; `again`: the one before, delivered twice."""
        self._said_us += not again
        self.take(word_of_heartbeat(Heartbeat(at_us=self._said_us, after=after, epochs=list(states)), retained))

    def hello(self, *states: EpochState, page: int = 1, pages: int = 1, after: int = 0) -> None:
        self.take(word_of_hello(Hello(sync="s", page=page, pages=pages, after=after, epochs=list(states)), False))

    def lost_all(self, retained: bool = False) -> None:
        """A hello of a site that has no memory."""
        self.take(word_of_hello(Hello(sync="s", epochs=[], lost=True), retained))

    def deliver(self, *batches: bytes) -> None:
        with self.store.writing() as db:
            store_batches(db, [Arrived("plant-01", decode(each), each) for each in batches], NOW)

    def lost(self) -> list[tuple[str, str | None, int | None, int | None, str]]:
        """Epoch, lane, range and kind of all that is lost."""
        with self.store.reading() as db:
            found, _ = losses.page(db, None, None, None, 1000)
        return [(each["epoch"], each["lane"], each["first"], each["last"], each["kind"]) for each in found]

    def held(self) -> set[str]:
        """The epochs that the site holds."""
        with self.store.reading() as db:
            return set(db.scalars(select(epochs.c.epoch).where(epochs.c.held)))

    def stream(self, epoch: str, lane: str = "decision") -> tuple[int, int, int]:
        """Where it is: high, told, last."""
        with self.store.reading() as db:
            query = select(streams.c.high, streams.c.told, streams.c.last)
            row = db.execute(query.where((streams.c.epoch == epoch) & (streams.c.lane == lane))).one()
        return (row.high, row.told, row.last)

    def incidents(self) -> list[tuple[str, str, int]]:
        """What, key and times of each."""
        with self.store.reading() as db:
            assert audit.verify(db) is None
            return [(each["what"], each["key"], each["times"]) for each in incidents.listed(db, None, 1000)]


@pytest.fixture
def book(store: Store) -> Book:
    return Book(store)


def test_a_word_is_noted_beside_what_is_held(book: Book, stream: Any) -> None:
    book.deliver(stream(epoch=A).grow(5).batch(1, 3))
    book.hello(state(A, 1, decision=5, alarm=2))
    assert (book.stream(A), book.stream(A, "alarm")) == ((3, 5, 5), (0, 2, 2))
    book.beat(state(A, 1, decision=9, alarm=2))
    assert (book.stream(A), book.held(), book.lost()) == ((3, 9, 9), {A}, [])


def test_a_replaced_disk_leaves_unknown_tails(book: Book, stream: Any) -> None:
    book.deliver(stream(epoch=A).grow(5).batch(1, 3))
    book.beat(state(A, 1, decision=5, alarm=2))
    book.hello(state(B, 1, decision=1))
    assert book.lost() == [
        (A, None, None, None, "unknown_tail"),  # it was not over: nobody knows what it wrote after its heartbeat
        (A, "alarm", 1, 2, "unknown_tail"),
        (A, "decision", 4, 5, "unknown_tail"),
    ]
    assert (book.held(), book.incidents()) == ({B}, [])


def test_an_epoch_that_was_over_and_whole_leaves_nothing_when_the_site_drops_it(book: Book, stream: Any) -> None:
    book.deliver(stream(epoch=A).grow(5).batch(1, 5))
    book.beat(state(A, 1, decision=5), state(B, 2, decision=1))
    book.beat(state(B, 2, decision=1))
    assert (book.held(), book.lost()) == ({B}, [])


def test_an_unknown_tail_heals_when_the_disk_comes_back(book: Book, stream: Any) -> None:
    written = stream(epoch=A).grow(5)
    book.deliver(written.batch(1, 3))
    book.beat(state(A, 1, decision=5))
    book.hello(state(B, 1, decision=1))
    assert (A, "decision", 4, 5, "unknown_tail") in book.lost()
    book.hello(state(A, 1, decision=5), state(C, 2, decision=1))
    assert book.held() == {A, C}
    assert {loss[0] for loss in book.lost()} == {B}
    book.deliver(written.batch(4, 5))
    book.hello(state(D, 1, decision=1))
    assert [loss for loss in book.lost() if loss[0] == A] == []


def test_a_journal_that_went_back_is_an_incident_once_and_its_tail_is_lost(book: Book, stream: Any) -> None:
    book.deliver(stream(epoch=A).grow(9).batch(1, 3))
    book.beat(state(A, 1, decision=9))
    rolled_back = (state(A, 1, decision=5), state(B, 2, decision=1))
    for _ in range(3):
        book.beat(*rolled_back)
    assert book.incidents() == [("journal_went_back", f"{A}:decision", 1)]
    assert book.lost() == [(A, None, None, None, "unknown_tail"), (A, "decision", 6, 9, "unknown_tail")]


def test_a_journal_that_went_back_behind_what_is_here_is_an_incident_and_no_known_loss(book: Book, stream: Any) -> None:
    book.deliver(stream(epoch=A).grow(9).batch(1, 9))
    for _ in range(2):
        book.beat(state(A, 1, decision=5), state(B, 2, decision=1))
    assert book.incidents() == [("journal_went_back", f"{A}:decision", 1)]
    assert book.lost() == [(A, None, None, None, "unknown_tail")]


def test_a_lane_that_is_gone_from_an_epoch_that_is_over_went_back_too(book: Book) -> None:
    book.beat(state(A, 1, decision=9, alarm=1))
    book.beat(state(A, 1, decision=9), state(B, 2, decision=1))
    assert book.incidents() == [("journal_went_back", f"{A}:alarm", 1)]
    assert (A, "alarm", 1, 1, "unknown_tail") in book.lost()


def test_a_word_that_is_overtaken_takes_nothing_away(book: Book) -> None:
    old = (state(A, 1, decision=5),)
    book.beat(*old)
    book.hello(state(A, 1, decision=9), state(B, 2, decision=1))
    book.beat(*old, again=True)
    book.beat(*old, again=True)
    assert (book.held(), book.stream(A), book.lost(), book.incidents()) == ({A, B}, (0, 9, 9), [], [])


def test_what_seems_newer_is_gone_where_a_second_heartbeat_says_so(book: Book) -> None:
    book.beat(state(A, 1, decision=5), state(B, 2, decision=3))
    book.hello(state(A, 1, decision=5))
    book.hello(state(A, 1, decision=5))
    book.beat(state(A, 1, decision=5))
    assert book.held() == {A, B}
    book.beat(state(A, 1, decision=5), again=True)
    assert book.held() == {A, B}
    book.beat(state(A, 1, decision=5))
    assert book.held() == {A}
    assert (B, "decision", 1, 3, "unknown_tail") in book.lost()


def test_a_word_between_two_that_are_doubted_speaks_against_them(book: Book) -> None:
    both = (state(A, 1, decision=5), state(B, 2, decision=3))
    for said in (both, both[:1], both, both[:1], both):
        book.beat(*said)
        assert book.held() == {A, B}


def test_what_the_broker_kept_takes_nothing_away(book: Book) -> None:
    book.beat(state(A, 1, decision=5), state(B, 2, decision=3))
    for _ in range(3):
        book.beat(state(A, 1, decision=4), state(C, 2, decision=1), retained=True)
    assert (book.held(), book.incidents(), book.lost()) == ({A, B, C}, [], [])
    assert (book.stream(A), book.stream(C)) == ((0, 5, 5), (0, 1, 1))


def test_what_the_broker_kept_does_not_give_back_what_was_dropped(book: Book) -> None:
    book.beat(state(A, 1, decision=5))
    book.hello(state(B, 1, decision=1))
    before = book.lost()
    book.beat(state(A, 1, decision=7), retained=True)
    assert (book.held(), book.stream(A)) == ({B}, (0, 7, 0))
    assert book.lost() != before
    assert (A, "decision", 1, 7, "unknown_tail") in book.lost()


def test_a_hub_that_was_away_learns_of_a_new_disk_from_what_the_broker_kept_and_two_heartbeats(book: Book) -> None:
    book.beat(state(A, 1, decision=5))
    book.beat(state(B, 1, decision=1), retained=True)
    assert book.held() == {A, B}
    book.beat(state(B, 1, decision=2))
    book.beat(state(B, 1, decision=3))
    assert book.held() == {B}
    assert (A, "decision", 1, 5, "unknown_tail") in book.lost()


def test_a_page_covers_the_orders_after_the_page_before_up_to_its_last(book: Book) -> None:
    book.hello(*(state(epoch, n, decision=1) for n, epoch in enumerate((A, B, C), 1)))
    book.hello(state(B, 2, decision=1), page=1, pages=2)
    assert book.held() == {B, C}
    book.hello(state(D, 4, decision=1), page=2, pages=2, after=2)
    assert book.held() == {B, D}
    book.hello(page=1, pages=2)
    assert book.held() == {B, D}


def test_a_heartbeat_says_nothing_of_the_orders_it_leaves_out(book: Book) -> None:
    book.hello(*(state(epoch, n, decision=1) for n, epoch in enumerate((A, B, C), 1)))
    book.beat(state(C, 3, decision=1), after=2)
    assert book.held() == {A, B, C}
    many = [state(f"{n:016x}", n, decision=1) for n in range(100, 100 + EPOCHS_PER_PAGE)]
    book.beat(state(D, 50, decision=1), *many)
    assert book.held() == {A, B, C} | {each.epoch for each in many}


def test_a_batch_that_came_too_early_shows_what_there_is(book: Book, stream: Any) -> None:
    written = stream(epoch=A).grow(9)
    book.beat(state(A, 1, decision=2))
    book.deliver(written.batch(1, 2), written.batch(7, 9))
    assert (book.stream(A), book.lost()) == ((2, 9, 9), [])
    book.hello(state(B, 1, decision=1))
    assert (A, "decision", 3, 9, "unknown_tail") in book.lost()
    book.deliver(written.batch(8, 9))
    assert book.stream(A) == (2, 9, 0)


def test_a_batch_that_can_not_be_read_and_came_too_early_shows_what_there_is(book: Book, stream: Any) -> None:
    message = stream(epoch=A).grow(9).batch(7, 9)
    with book.store.writing() as db:
        for hurt, told in ((True, 0), (False, 9)):
            store_batches(db, [Poison("plant-01", decode(message).header, message, "no rows", hurt)], NOW)
            assert (db.scalar(select(streams.c.told)) or 0) == told


def test_a_fork_is_an_incident_and_what_is_above_is_lost(book: Book, stream: Any) -> None:
    ours, theirs = stream(epoch=A).grow(5), stream(epoch=A).grow(9, label="other")
    book.deliver(ours.batch(1, 5))
    book.beat(state(A, 1, decision=7))
    for _ in range(2):
        book.deliver(theirs.batch(4, 9))
    assert book.incidents() == [("fork", f"{A}:decision", 2)]
    assert book.lost() == [(A, "decision", 6, 9, "fork")]
    book.beat(state(A, 1, decision=9), state(B, 2, decision=1))
    assert book.lost() == [(A, "decision", 6, 9, "fork")]


def test_a_fork_before_anything_is_held_is_noted_too(book: Book, stream: Any) -> None:
    other = stream(epoch=A, start=bytes(32)).grow(4)
    book.deliver(other.batch(1, 4))
    assert book.incidents() == [("fork", f"{A}:decision", 1)]
    assert (book.stream(A), book.lost()) == ((0, 4, 0), [(A, "decision", 1, 4, "fork")])


def test_what_a_word_does_not_change_is_not_written_again(book: Book) -> None:
    said = (state(A, 1, decision=5, telemetry=9), state(B, 2, alarm=1))
    book.beat(*said)
    statements: list[str] = []
    with book.store.writing() as db:
        event.listen(db, "before_cursor_execute", lambda *args: statements.append(args[2]))
        for word in (word_of_heartbeat(Heartbeat(at_us=7, epochs=list(said)), False), Word(said, 0, None)):
            book.accounts.take(db, "plant-01", word, NOW)
    assert [statement.split()[0] for statement in statements] == ["SELECT", "SELECT"]


def test_many_epochs_are_dropped_at_once(book: Book) -> None:
    for page in range(3):
        some = [state(f"f{page}{n:014x}", page * 200 + n + 1, decision=1) for n in range(200)]
        book.hello(*some, page=page + 1, pages=3, after=page * 200)
    assert len(book.held()) == 600
    book.hello(state(A, 1, decision=1))
    assert book.held() == {A}
    with book.store.reading() as db:
        assert db.scalar(select(losses.summed(losses.UNKNOWN))) == 600


def test_what_a_site_that_lost_its_memory_has_from_the_hub_is_not_what_it_wrote(book: Book, stream: Any) -> None:
    book.deliver(stream(epoch=A).grow(5).batch(1, 3))
    book.beat(state(A, 1, decision=3, telemetry=9))
    book.lost_all()
    lost = [(A, None, None, None, "unknown_tail"), (A, "telemetry", 1, 9, "unknown_tail")]
    assert (book.held(), book.lost()) == (set(), lost)
    for _ in range(2):
        book.hello(state(A, 1, decision=3), state(B, 2, decision=1))
        book.beat(state(A, 1, decision=3), state(B, 2, decision=2))
        assert (book.held(), book.lost(), book.incidents()) == ({B}, lost, [])
    book.beat(state(A, 1, decision=4, telemetry=9), state(C, 2, decision=1))  # the old disk is back
    assert book.held() == {A, C}
    assert (A, "telemetry", 1, 9, "unknown_tail") not in book.lost()


def test_what_was_dropped_before_a_site_lost_its_memory_does_not_come_back_with_it(book: Book, stream: Any) -> None:
    book.deliver(stream(epoch=A).grow(5).batch(1, 3))
    book.beat(state(A, 1, decision=3))
    book.hello(state(B, 1, decision=1))
    book.lost_all()
    book.hello(state(A, 1, decision=3), state(B, 2, decision=0), state(C, 3, decision=1))
    assert book.held() == {C}
    assert (A, None, None, None, "unknown_tail") in book.lost()


def test_a_site_that_lives_on_after_an_old_word_of_its_loss_holds_what_it_grows(book: Book, stream: Any) -> None:
    book.beat(state(A, 1, decision=3))
    book.lost_all()
    book.deliver(stream(epoch=A).grow(5).batch(1, 5))
    book.beat(state(A, 1, decision=5))
    assert (book.held(), book.lost()) == ({A}, [])


def test_what_the_broker_kept_of_a_lost_epoch_still_tells_its_end(book: Book) -> None:
    book.beat(state(A, 1, decision=3))
    book.lost_all()
    book.beat(state(A, 1, decision=7), state(B, 2, decision=1), retained=True)
    assert (book.stream(A), book.held()) == ((0, 7, 0), {B})
    assert (A, None, None, None, "unknown_tail") in book.lost()


def test_an_epoch_that_only_came_online_is_not_forgotten(book: Book) -> None:
    with book.store.writing() as db:
        db.execute(sites.insert().values(site="plant-01", labels={}, created_us=1, online=False))
        registry.presence(db, NOW, "plant-01", Presence(online=True, epoch=A, session=1), False)
    book.hello(state(B, 1, decision=1))
    assert book.lost() == [(A, None, None, None, "unknown_tail")]


def test_a_word_that_names_an_epoch_twice_names_it_once(book: Book) -> None:
    book.beat(state(A, 1, decision=3), state(A, 1, decision=4))
    book.hello(state(A, 1, decision=3), state(A, 2, decision=5))
    assert book.stream(A) == (0, 5, 5)


def test_an_epoch_that_was_only_heard_of_is_not_older_than_those_named_with_it(book: Book) -> None:
    """A presence comes before the hello that names the epoch before it too: the facts of both would be confused."""
    online = Presence(online=True, epoch=C, session=3 << 20)
    with book.store.writing() as db:
        db.execute(sites.insert().values(site="plant-01", labels={}, created_us=1, online=False))
        registry.presence(db, NOW - 1_000, "plant-01", online, retained=False)
    book.hello(state(A, 1, decision=1), state(B, 2, decision=1), state(C, 3, decision=1))
    with book.store.reading() as db:
        since = dict(db.execute(select(epochs.c.epoch, epochs.c.since_us)).all())
    assert since[A] == since[B] == since[C], "so the site's own order decides"


def test_a_hello_of_a_lost_memory_that_the_broker_kept_takes_nothing_away(book: Book) -> None:
    book.hello(state(A, 1, decision=3), state(B, 2))
    book.lost_all(retained=True)
    assert book.held() == {A, B}
    assert book.lost() == []
    book.lost_all()
    assert book.held() == set()
