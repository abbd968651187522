"""sync/SPEC.md, Checkpoints: the format, and what is refused."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edge_models.errors import RejectedError
from edge_sync.checkpoint import Checkpoint, End, Ends, read, sign, signed_bytes

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw().hex()
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))

NOW = Ends("00000000000000bb", 2, {"decision": End(7, "ab" * 32), "telemetry": End(900, "cd" * 32)})
BEFORE = Ends("00000000000000aa", 1, {"alarm": End(1, "ef" * 32)})


def made(**changed: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(sign("plant-01", NOW, BEFORE, 1_800_000_000_000_000, PUBLIC, KEY.sign))
    return body | changed


def test_a_checkpoint_is_read_as_it_was_signed() -> None:
    found = read(json.dumps(made()))
    assert (found.site, found.key, found.ends) == ("plant-01", PUBLIC, (BEFORE, NOW))
    assert made()["streams"] == {"decision": [7, "ab" * 32], "telemetry": [900, "cd" * 32]}


def test_one_without_an_epoch_before_says_nothing_of_it() -> None:
    body = sign("plant-01", NOW, None, 1, PUBLIC, KEY.sign)
    assert "before" not in json.loads(body)
    assert read(body).ends == (NOW,)


def test_what_is_signed_are_these_lines() -> None:
    """Others can check a checkpoint with nothing but this and ed25519."""
    assert signed_bytes(read(json.dumps(made()))).decode().splitlines() == [
        "edge/v1 checkpoint",
        "plant-01",
        "00000000000000bb 2 1800000000000000",
        "decision 7 " + "ab" * 32,
        "telemetry 900 " + "cd" * 32,
        "before 00000000000000aa 1",
        "alarm 1 " + "ef" * 32,
        f"key {PUBLIC}",
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"site": "plant-02"},
        {"epoch": "00000000000000cc"},
        {"order": 3},
        {"at_us": 5},
        {"streams": {"decision": [7, "ab" * 32]}},
        {"streams": {"decision": [8, "ab" * 32], "telemetry": [900, "cd" * 32]}},
        {"streams": {"decision": [7, "aa" * 32], "telemetry": [900, "cd" * 32]}},
        {"before": None},
        {"before": {"epoch": "00000000000000aa", "order": 1, "streams": {}}},
        {"key": OTHER.public_key().public_bytes_raw().hex()},
        {"sig": "00" * 64},
    ],
)
def test_no_field_can_be_changed(changed: dict[str, Any]) -> None:
    with pytest.raises(RejectedError, match="its signature does not hold"):
        read(json.dumps(made(**changed)))


def test_a_signature_of_other_bytes_with_the_same_key_is_none() -> None:
    forged = sign("plant-01", NOW, None, 1, PUBLIC, lambda raw: KEY.sign(raw.replace(b"edge/v1 checkpoint\n", b"")))
    with pytest.raises(RejectedError, match="signature"):
        read(forged)


@pytest.mark.parametrize(
    "changed",
    [
        {"v": 2},
        {"v": "1"},
        {"site": "Plant 01"},
        {"site": "plant-01\n"},
        {"epoch": "bb"},
        {"order": -1},
        {"order": True},
        {"streams": {"fast": [1, "ab" * 32]}},
        {"streams": {"alarm": [0, "ab" * 32]}},
        {"streams": {"alarm": [1, "ab"]}},
        {"streams": {"alarm": [1]}},
        {"streams": None},
        {"key": "zz" * 32},
        {"sig": "00"},
        {"before": {}},
    ],
)
def test_what_has_not_its_form_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(RejectedError, match="it is no checkpoint"):
        read(json.dumps(made(**changed)))


def test_a_truncated_body_is_refused_at_every_length() -> None:
    whole = json.dumps(made())
    for length in range(len(whole)):
        with pytest.raises(RejectedError):
            read(whole[:length])


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5).map(json.dumps))
def test_only_a_refusal_leaves_the_reader(body: str) -> None:
    with pytest.raises(RejectedError):
        read(body)


@given(
    st.dictionaries(st.sampled_from(["alarm", "decision", "telemetry"]), st.integers(1, 2**53 - 1)),
    st.dictionaries(st.sampled_from(["alarm", "decision", "telemetry"]), st.integers(1, 2**53 - 1)) | st.none(),
)
def test_all_that_is_written_can_be_read(now: dict[Any, int], before: dict[Any, int] | None) -> None:
    ends = Ends("00000000000000bb", 2, {lane: End(seq, "ab" * 32) for lane, seq in now.items()})
    older = (
        None
        if before is None
        else Ends("00000000000000aa", 0, {lane: End(seq, "cd" * 32) for lane, seq in before.items()})
    )
    found: Checkpoint = read(sign("plant-01", ends, older, 0, PUBLIC, KEY.sign))
    assert found.ends == ((ends,) if older is None else (older, ends))


def test_a_refusal_does_not_repeat_all_that_was_sent() -> None:
    with pytest.raises(RejectedError, match="Invalid enum value") as refused:
        read('{"v":1,"streams":{"%s":[1,""]}}' % ("x" * 60_000))
    assert len(str(refused.value)) < 300
