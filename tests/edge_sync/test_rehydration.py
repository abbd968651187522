"""Held: sync/SPEC.md, section A site that lost its memory."""

import base64
from typing import Any

import pytest

from edge_models.errors import RejectedError
from edge_sync.batch import encode
from edge_sync.documents import KnownFact, Memory, Tail, dump
from edge_sync.rehydration import CONNECT_S, HELLO_AGAIN_S, MAX_ORDER, REHYDRATE_S, Rehydration, Returned, Without
from edge_sync.rows import Gap, Row, chain, chain_start, row_bytes

EPOCHS = ("00000000000000aa", "00000000000000bb")


def signed(envelope: bytes) -> bytes:
    """Stands for a signature: what is not marked so was forged."""
    if not envelope.startswith(b"signed:"):
        raise RejectedError("not signed")
    return envelope.removeprefix(b"signed:")


def asked(now: float = 0.0) -> Rehydration:
    return Rehydration("plant-01", "s1", signed, now)


def batch(epoch: str, lane: str = "decision", gap: bool = False) -> bytes:
    raw = row_bytes(Row(7, 1, "decision", "press", None, "go", 0.5, None, "{}"))
    before = chain_start(epoch, lane)
    after = chain(before, raw)
    gaps = [Gap(8, 8, "lost", after)] if gap else []
    return encode(epoch, lane, [raw], gaps, (7, 8 if gap else 7), (before, after))


def answer(*batches: bytes, **changed: Any) -> bytes:
    tails = [Tail(order=n, batch=base64.b64encode(each).decode()) for n, each in enumerate(batches, 1)]
    fields: dict[str, Any] = {"site": "plant-01", "sync": "s1", "order": 5, "batches": tails} | changed
    return b"signed:" + dump(Memory(**fields))


def test_a_hello_is_said_once_the_link_is_up_and_again_until_it_is_answered() -> None:
    question = asked(100.0)
    assert question.tick(101.0) is None
    hello = question.up(101.5)
    assert hello is not None
    assert (hello.sync, hello.epochs, hello.lost, hello.page, hello.pages) == ("s1", [], True, 1, 1)
    assert question.tick(101.5 + HELLO_AGAIN_S - 0.1) is None
    assert question.tick(101.5 + HELLO_AGAIN_S) == hello
    question.heard(answer())
    assert isinstance(question.outcome, Returned)
    assert question.up(105.0) is None
    assert question.tick(200.0) is None
    assert isinstance(question.outcome, Returned)


def test_a_site_that_is_behind_asks_and_says_nothing_of_what_it_holds() -> None:
    question = Rehydration("plant-01", "s1", signed, 0.0, has_memory=True)
    hello = question.up(0.1)
    assert hello is not None
    assert (hello.sync, hello.epochs, hello.lost, hello.asks) == ("s1", [], False, True)
    question.heard(answer())
    assert isinstance(question.outcome, Returned)


def test_what_came_back_is_verified_and_decoded() -> None:
    question = asked()
    question.up(0.1)
    question.heard(answer(*(batch(epoch) for epoch in EPOCHS), facts=[KnownFact(key="k", value=1, origin="x")]))
    assert isinstance(question.outcome, Returned)
    assert [each.header.epoch for each in question.outcome.batches] == list(EPOCHS)
    assert question.outcome.memory.order == 5


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        answer().removeprefix(b"signed:"),
        b"signed:{}",
        answer(site="plant-02"),
        answer(sync="s0"),
        answer(order=MAX_ORDER + 1),
        answer(b"EJ1 no batch"),
        answer(batch(EPOCHS[0])[:-1]),
        answer(batch(EPOCHS[0], lane="telemetry")),
        answer(batch(EPOCHS[0], gap=True)),
        answer(batch(EPOCHS[0]), batch(EPOCHS[0])),
        answer(batches=[Tail(order=1, batch="no base64!")]),
    ],
)
def test_what_is_not_the_answer_is_not_believed_and_the_answer_still_is(envelope: bytes) -> None:
    question = asked()
    question.up(0.0)
    question.heard(envelope)
    assert question.outcome is None
    question.heard(answer())
    assert isinstance(question.outcome, Returned)


def test_without_a_link_it_ends_soon_and_says_why() -> None:
    question = asked(10.0)
    question.down("no connection")
    assert question.tick(10.0 + CONNECT_S - 0.1) is None
    assert question.outcome is None
    question.tick(10.0 + CONNECT_S)
    assert question.outcome == Without("no connection")
    question.heard(answer())
    assert question.outcome == Without("no connection")


def test_without_an_answer_it_ends_in_time() -> None:
    question = asked()
    now = 0.5
    question.up(now)
    said = 1
    while question.outcome is None:
        now += 0.1
        said += question.tick(now) is not None
        assert now < REHYDRATE_S + 0.2
    assert question.outcome == Without("the hub did not answer")
    assert now >= REHYDRATE_S
    assert said == 1 + (REHYDRATE_S - 0.5) // HELLO_AGAIN_S


def test_a_link_that_comes_and_goes_ends_it_no_later() -> None:
    question, now = asked(), 0.0
    while question.outcome is None:
        now += 0.4
        question.down("gone")
        question.up(now)
        question.tick(now)
        assert now < REHYDRATE_S + 0.5
    assert isinstance(question.outcome, Without)
