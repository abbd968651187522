"""The folder of a site's identity: what is there after a cut at any point, and who may change it."""

import json
import stat
from pathlib import Path

import pytest

from edge_agent.enrol.identity import UNKNOWN, IdentityFolder, Pair, print_of
from edge_agent.enrol.schedule import Held
from edge_models.errors import ConfigError, RetryableError

HELD, NEWER = Held(1, 2, 3, "first"), Held(4, 5, 6, "second")


def pair(word: str) -> Pair:
    return Pair(f"key {word}".encode(), f"certificate {word}".encode(), f"root {word}".encode())


@pytest.fixture
def folder(tmp_path: Path) -> IdentityFolder:
    return IdentityFolder(tmp_path / "data" / "identity", "plant-01")


def took(folder: IdentityFolder, word: str, held: Held) -> None:
    with folder.locked():
        folder.take(pair(word), held)


def read(folder: IdentityFolder) -> Pair:
    return Pair(folder.key.read_bytes(), folder.certificate.read_bytes(), folder.ca.read_bytes())


def test_what_was_taken_is_there_for_its_owner_alone(folder: IdentityFolder) -> None:
    assert folder.held() is None
    took(folder, "1", HELD)
    assert (read(folder), folder.held()) == (pair("1"), HELD)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.key.stat().st_mode) == 0o600
    assert sorted(each.name for each in folder.path.parent.iterdir()) == ["identity", "identity.lock"]


def test_the_next_pair_takes_the_place_of_the_last_whole(folder: IdentityFolder) -> None:
    took(folder, "1", HELD)
    with folder.locked():
        folder.keep_key(b"key 2")
        assert folder.next_key() == b"key 2"
        assert read(folder) == pair("1")
        folder.take(pair("2"), NEWER)
    assert (read(folder), folder.held(), folder.next_key()) == (pair("2"), NEWER, None)


def test_a_key_outlives_the_process_that_asked_with_it(folder: IdentityFolder) -> None:
    with folder.locked():
        folder.keep_key(b"key 1")
    again = IdentityFolder(folder.path, "plant-01")
    again.settle()
    assert (again.next_key(), again.held()) == (b"key 1", None)


def whole(path: Path, word: str, held: Held) -> None:
    """A folder with all that belongs into it."""
    elsewhere = IdentityFolder(path.parent / f"made-{word}", "plant-01")
    took(elsewhere, word, held)
    elsewhere.path.rename(path)


@pytest.mark.parametrize("left", [("key.pem", "certificate.pem", "ca.pem", "about.json"), ("certificate.pem",), ()])
def test_a_swap_that_was_cut_short_is_brought_to_its_end(folder: IdentityFolder, left: tuple[str, ...]) -> None:
    folder.path.parent.mkdir()
    whole(folder.path, "1", HELD)
    whole(folder.path.with_name("identity.next"), "2", NEWER)
    for file in folder.path.iterdir():
        if file.name not in left:
            file.unlink()
    assert folder.held() == NEWER
    folder.settle()
    assert (read(folder), folder.held(), folder.next_key()) == (pair("2"), NEWER, None)


def test_an_old_pair_that_was_left_when_the_new_one_was_in_place_goes(folder: IdentityFolder) -> None:
    folder.path.parent.mkdir()
    whole(folder.path.with_name("identity.old"), "1", HELD)
    whole(folder.path, "2", NEWER)
    folder.settle()
    assert (read(folder), folder.held()) == (pair("2"), NEWER)
    assert not folder.path.with_name("identity.old").exists()


def test_an_answer_of_which_not_all_was_written_changes_nothing(folder: IdentityFolder) -> None:
    took(folder, "1", HELD)
    with folder.locked():
        folder.keep_key(b"key 2")
    (folder.path.parent / "identity.next" / "certificate.pem").write_bytes(b"certificate 2")
    folder.settle()
    assert (read(folder), folder.held(), folder.next_key()) == (pair("1"), HELD, b"key 2")


def test_one_process_at_a_time_asks(folder: IdentityFolder) -> None:
    other = IdentityFolder(folder.path, "plant-01")
    with folder.locked(), pytest.raises(RetryableError, match="another process asks"), other.locked():
        pass
    with other.locked():
        pass


def test_settling_beside_one_who_asks_leaves_it_to_him(folder: IdentityFolder) -> None:
    with folder.locked():
        folder.keep_key(b"key 1")
        IdentityFolder(folder.path, "plant-01").settle()
        assert folder.next_key() == b"key 1"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"site": "plant-01"}', b"\xff"])
def test_a_certificate_of_which_nothing_is_known_is_one_that_is_due(folder: IdentityFolder, damage: bytes) -> None:
    took(folder, "1", HELD)
    (folder.path / "about.json").write_bytes(damage)
    assert folder.held() == UNKNOWN


def test_another_sites_identity_is_not_this_sites(folder: IdentityFolder) -> None:
    took(folder, "1", HELD)
    about = json.loads((folder.path / "about.json").read_bytes())
    (folder.path / "about.json").write_text(json.dumps(about | {"site": "plant-02"}))
    with pytest.raises(ConfigError, match="'plant-02', not of 'plant-01'"):
        folder.held()


def test_a_tokens_print_is_the_same_with_a_line_end_and_tells_nothing() -> None:
    assert print_of("EK1abc::plant-01:secret\n") == print_of("EK1abc::plant-01:secret")
    assert print_of("EK1abc::plant-01:secret") != print_of("EK1abc::plant-01:secreT")
    assert "secret" not in print_of("EK1abc::plant-01:secret")
