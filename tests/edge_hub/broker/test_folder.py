import stat
from pathlib import Path
from typing import get_args

import pytest

from edge_hub.broker import BrokerFolder, Role
from edge_hub.broker.passwords import PasswordHash, hash_password
from edge_hub.broker.roles import allows, check_user, matches, rules
from edge_models.errors import ConfigError


def test_no_password_is_kept(folder: BrokerFolder) -> None:
    password = folder.add_user("plant-01", "site")
    for path in folder.path.iterdir():
        assert password.encode() not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert folder.users()["plant-01"].matches(password)
    assert not folder.users()["plant-01"].matches(password + "x")


def test_a_service_keeps_its_password(folder: BrokerFolder) -> None:
    path = folder.service_user("_hub", "hub")
    assert folder.service_user("_hub", "hub").read_text() == path.read_text()
    assert folder.users()["_hub"].matches(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_file_is_named(folder: BrokerFolder) -> None:
    folder.credentials.write_text('{"users": {"plant-01": {"role": "king"}}}')
    with pytest.raises(ConfigError, match=r"credentials\.json: damaged"):
        folder.users()


@pytest.mark.parametrize(
    ("name", "role", "says"),
    [
        ("Plant", "site", "site id 'Plant'"),
        ("fleet", "site", "reserved"),
        ("plant-01", "hub", "named _hub"),
        ("plant-01", "local", "named _local_SITE"),
        ("_local_x y", "local", "site id 'x y'"),
        ("plant-01\nuser x", "site", "site id"),
        ("plant-01", "king", "no role"),
    ],
)
def test_a_name_that_its_role_cannot_have(name: str, role: Role, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_user(name, role)


def test_hash_text_round_trip() -> None:
    made = hash_password("secret")
    assert PasswordHash.from_text(made.as_text()) == made
    with pytest.raises(ValueError, match="kind"):
        PasswordHash.from_text(made.as_text().replace("$7$", "$6$"))


@pytest.mark.parametrize(
    ("topic_filter", "topic", "yes"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/+/c", "a/b/c", True),
        ("a/+", "a", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "$SYS/x", False),
        ("a/#", "b/c", False),
    ],
)
def test_filters(topic_filter: str, topic: str, yes: bool) -> None:
    assert matches(topic_filter, topic) is yes


def test_every_role_has_rules_and_none_may_everything() -> None:
    names = {"site": "plant-01", "local": "_local_plant-01"}
    for role in get_args(Role):
        granted = rules(names.get(role, f"_{role}"), role)
        for topic in ("edge/v1/plant-02/up/journal", "local/plant-02/x"):
            may = {access for access in ("read", "write") if allows(granted, access, topic)}
            expected = {("hub", "edge"): {"read"}, ("feeder", "loca"): {"read", "write"}}
            assert may == expected.get((role, topic[:4]), set())


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="broker folder"):
        BrokerFolder(tmp_path / "file" / "broker")


def test_a_hub_that_ends_while_it_ejects_loses_nobodys_password(tmp_path: Path) -> None:
    folder = BrokerFolder(tmp_path / "broker")
    password = folder.add_user("_local_plant-01", "local")
    folder.change(certificates=["plant-01"])
    names = ("_local_plant-01", "plant-01", "plant-02")
    for _ in range(2):  # ejected again before it was put back
        folder.change(passwords=dict.fromkeys(names, "ejected"))
    assert not folder.knows("_local_plant-01", "local", password)
    again = BrokerFolder(tmp_path / "broker")  # of another process
    again.put_back()
    assert again.knows("_local_plant-01", "local", password)
    assert {name: (user.role, user.was) for name, user in again.users().items()} == {
        "_local_plant-01": ("local", None),
        "plant-01": ("site", None),
    }
