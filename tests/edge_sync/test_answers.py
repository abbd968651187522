"""Acks and resumes are their hub's, of one site and one kind: sync/SPEC.md, Journal sync."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_models.errors import RejectedError
from edge_sync.answers import Answers, opened
from edge_sync.signing import make_key, public_key

ACK, RESUME = "edge/v1/plant-01/down/ack", "edge/v1/plant-01/down/resume"
DOCUMENT = b'{"epoch":"00","lane":"alarm","seq":7}'


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "director.key"
    make_key(path)
    return path


def test_what_the_director_sealed_opens_with_its_key_among_others(key: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other.key")
    assert opened(ACK, Answers(key).seal(ACK, DOCUMENT), [other, public_key(key)]) == DOCUMENT


@pytest.mark.parametrize("topic", [RESUME, ACK.replace("plant-01", "plant-02")])
def test_an_answer_of_another_kind_or_to_another_site_is_refused(key: Path, topic: str) -> None:
    with pytest.raises(RejectedError, match="not signed by a director"):
        opened(topic, Answers(key).seal(ACK, DOCUMENT), [public_key(key)])


def test_any_flipped_bit_is_refused(key: Path) -> None:
    sealed = Answers(key).seal(ACK, DOCUMENT)
    for at in range(len(sealed)):
        hurt = bytearray(sealed)
        hurt[at] ^= 1
        with pytest.raises(RejectedError):
            opened(ACK, bytes(hurt), [public_key(key)])


def test_a_site_that_knows_no_director_takes_what_has_the_form(key: Path) -> None:
    assert opened(ACK, Answers(key).seal(RESUME, DOCUMENT), ()) == DOCUMENT
    with pytest.raises(RejectedError, match="not signed"):
        opened(ACK, DOCUMENT, ())


@given(message=st.binary(max_size=300))
def test_only_a_refusal_leaves_it(message: bytes) -> None:
    with pytest.raises(RejectedError):
        opened(ACK, message, ["00" * 32])
