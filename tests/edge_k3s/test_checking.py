import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_k3s.checking import Finding, Look, TokenState, check_kit
from edge_k3s.kit import write_kit
from edge_k3s.machine import MachineFacts, read_machine
from edge_k3s.sealing import Sealer, read_sums, sums_of
from edge_k3s.spec import KitSpec
from edge_k3s.validating import validator
from edge_models.errors import ConfigError, RejectedError, RetryableError

MADE_S = 1_796_000_000
MACHINE = MachineFacts("amd64", 4, 4000, 40_000, "/var/lib", True, None)
LOOK = Look(now_s=MADE_S + 3600, version="0.1.0", validate=validator(), machine=MACHINE)


def wrong(findings: list[Finding]) -> list[str]:
    return [finding.what for finding in findings if finding.grade == "wrong"]


def minded(findings: list[Finding]) -> str:
    return "\n".join(f"{finding.what}: {finding.do}" for finding in findings if finding.grade == "mind")


def test_a_kit_that_is_well(full_kit: Path, joining: KitSpec, sealer: Sealer) -> None:
    findings = check_kit(full_kit, dataclasses.replace(LOOK, root=joining.root, here=True))
    assert [finding.grade for finding in findings] == ["good"] * len(findings)
    said = "\n".join(finding.what for finding in findings)
    assert f"signed by {sealer.public}, a key of your root" in said
    assert "plant-08, release 3, edge-agent-kit:0.1.0-0123456789ab, k3s v1.35.2+k3s1 for any processor" in said
    assert "the join token is good for 6 days, by its date" in said
    assert "this machine is large enough, and has a default route" in said
    assert "every manifest is valid" in said


def test_whose_root_it_is_has_to_be_known_by_another_way(full_kit: Path) -> None:
    assert "whose root that is was not looked at" in minded(check_kit(full_kit, LOOK))


def test_another_operators_kit_is_refused(full_kit: Path) -> None:
    other = b'{"signed": {"roles": {"targets": {"keyids": []}}, "keys": {}}}'
    assert wrong(check_kit(full_kit, dataclasses.replace(LOOK, root=other))) == [
        "no key of the operator's targets role made this signature"
    ]


def test_an_unsigned_kit(kit: Path, joining: KitSpec) -> None:
    assert "it is not signed" in minded(check_kit(kit, LOOK))
    assert wrong(check_kit(kit, dataclasses.replace(LOOK, root=joining.root))) == ["it is not signed"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda kit: (kit / "site.yaml").write_text("x"), "site.yaml was changed"),
        (lambda kit: (kit / "root.json").unlink(), "root.json cannot be read (No such file or directory)"),
        (lambda kit: (kit / "SHA256SUMS").write_text("nonsense\n"), "SHA256SUMS: line 1 is no sum"),
        (lambda kit: (kit / "SHA256SUMS").write_text(f"{'0' * 64}  ../x\n"), "SHA256SUMS: line 1 is no sum"),
        (lambda kit: (kit / "SHA256SUMS.sig").write_bytes(b"x" * 64), "no key of the operator's targets role"),
        (
            lambda kit: [(kit / name).write_text("x") for name in ("site.yaml", "kit.env")],
            "kit.env was changed, and 1 more",
        ),
        (
            lambda kit: [
                (kit / "site.yaml").rename(kit / "other"),
                (kit / "site.yaml").symlink_to(kit / "other"),
            ],
            "site.yaml is a link",
        ),
    ],
)
def test_a_tampered_kit_is_wrong_and_not_read_any_further(
    full_kit: Path, spoil: Callable[[Path], object], says: str
) -> None:
    spoil(full_kit)
    findings = check_kit(full_kit, LOOK)
    assert says in wrong(findings)[0]
    assert not any("manifest" in finding.what for finding in findings)


def test_new_sums_do_not_help_without_the_key(full_kit: Path) -> None:
    (full_kit / "site.yaml").write_text("site: plant-66\n")
    named = read_sums((full_kit / "SHA256SUMS").read_bytes())
    sums = sums_of({name: hashlib.sha256((full_kit / name).read_bytes()).hexdigest() for name in named})
    (full_kit / "SHA256SUMS").write_bytes(sums)
    assert wrong(check_kit(full_kit, LOOK)) == ["no key of the operator's targets role made this signature"]


def test_what_lies_beside_is_told_of(full_kit: Path) -> None:
    (full_kit / "System Volume Information").mkdir()
    (full_kit / "System Volume Information" / "x").write_text("")
    (full_kit / "data").mkdir()
    (full_kit / "data" / "memory.db").write_text("of a trial run")
    findings = check_kit(full_kit, LOOK)
    assert not wrong(findings)
    assert "System Volume Information/x is no part of the kit" in minded(findings)
    assert "memory.db" not in minded(findings)


@pytest.mark.parametrize("path", ["airgap/more.tar", "manifests/99-more.yaml", "node/x", "release/deep/x", "airgap/l"])
def test_what_lies_among_the_signed_files_is_wrong(full_kit: Path, path: str) -> None:
    (full_kit / path).parent.mkdir(exist_ok=True)
    if path == "airgap/l":
        (full_kit / path).symlink_to("/etc")
    else:
        (full_kit / path).write_text("a stranger's")
    assert wrong(check_kit(full_kit, LOOK)) == [f"{path} is no part of the kit"]


@pytest.mark.parametrize(
    ("later_s", "says"),
    [(7 * 86_400 - 1, []), (7 * 86_400, ["the join token ended 0 minutes ago"]), (10 * 86_400, ["3 days ago"])],
)
def test_a_token_ends(full_kit: Path, later_s: int, says: list[str]) -> None:
    found = wrong(check_kit(full_kit, dataclasses.replace(LOOK, now_s=MADE_S + later_s)))
    assert len(found) == len(says)
    assert all(part in what for part, what in zip(says, found, strict=True))


@pytest.mark.parametrize(
    ("known", "grade", "says"),
    [
        (TokenState("open", MADE_S + 7 * 86_400), "good", "the join token is good for 6 days, says the hub"),
        (TokenState("spent", MADE_S + 7 * 86_400), "mind", "the join token is spent: a machine has joined with it"),
        (TokenState("void", MADE_S + 7 * 86_400), "wrong", "the join token is void, says the hub"),
        (TokenState("expired", MADE_S + 7 * 86_400), "wrong", "the join token is expired, says the hub"),
        (TokenState("open", MADE_S + 8 * 86_400), "wrong", "the hub has made a newer join token"),
        (None, "wrong", "the hub knows no join token of plant-08"),
    ],
)
def test_the_hub_knows_more_of_a_token_than_its_date(
    full_kit: Path, known: TokenState | None, grade: str, says: str
) -> None:
    tokens = {"plant-09": TokenState("open", MADE_S), **({} if known is None else {"plant-08": known})}
    findings = check_kit(full_kit, dataclasses.replace(LOOK, ask_tokens=lambda: tokens))
    (found,) = (finding for finding in findings if "join token" in finding.what)
    assert (found.grade, found.what.startswith(says)) == (grade, True), found
    assert not found.do if grade == "good" else found.do


def test_a_spent_token_is_of_no_use_to_another_machine(full_kit: Path) -> None:
    spent = {"plant-08": TokenState("spent", MADE_S + 7 * 86_400)}
    look = dataclasses.replace(LOOK, ask_tokens=lambda: spent, here=True)
    assert wrong(check_kit(full_kit, look)) == ["the join token is spent: a machine has joined with it"]
    its_node = dataclasses.replace(look, machine=dataclasses.replace(MACHINE, site="plant-08"))
    assert not wrong(check_kit(full_kit, its_node))


def test_a_hub_that_does_not_say_leaves_the_date(full_kit: Path) -> None:
    def away() -> dict[str, TokenState]:
        raise RetryableError("the hub is away")

    findings = check_kit(full_kit, dataclasses.replace(LOOK, ask_tokens=away))
    assert not wrong(findings)
    assert "the join token is good for 6 days, by its date; the hub is away" in minded(findings)


def test_a_node_that_has_joined_needs_no_token(full_kit: Path) -> None:
    machine = dataclasses.replace(MACHINE, site="plant-08")
    findings = check_kit(full_kit, dataclasses.replace(LOOK, now_s=MADE_S + 9 * 86_400, machine=machine, here=True))
    assert not wrong(findings)
    assert "the join token ended 2 days ago" in minded(findings)


def test_a_token_for_another_site(joining: KitSpec, sealer: Sealer, tmp_path: Path) -> None:
    assert joining.enrol is not None
    for token, says in (
        (joining.enrol.token.replace("plant-08", "plant-09"), "the join token is for plant-09, not for plant-08"),
        ("nonsense", "no readable join token"),
    ):
        spec = dataclasses.replace(joining, enrol=dataclasses.replace(joining.enrol, token=token))
        write_kit(spec, tmp_path / token[-8:], sealer)
        assert wrong(check_kit(tmp_path / token[-8:], LOOK)) == [says]


def test_a_clock_that_is_behind_is_told_of(full_kit: Path) -> None:
    findings = check_kit(full_kit, dataclasses.replace(LOOK, now_s=0))
    assert not wrong(findings)
    assert "clock is behind" in minded(findings)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"cores": 1}, "1 processor cores, and this kit needs 2"),
        ({"memory_mb": 900}, "900 MB of memory, and this kit needs 1800"),
        ({"disk_mb": 100}, "100 MB free in /var/lib"),
        ({"has_route": False}, "no default route"),
        ({"site": "plant-03"}, "is a node of plant-03 already"),
    ],
)
def test_a_machine_that_does_not_do(full_kit: Path, facts: dict[str, object], says: str) -> None:
    look = dataclasses.replace(LOOK, machine=dataclasses.replace(MACHINE, **facts))  # type: ignore[arg-type]
    assert not [finding for finding in check_kit(full_kit, look) if "machine" in finding.what], "nobody's node yet"
    (only,) = wrong(check_kit(full_kit, dataclasses.replace(look, here=True)))
    assert says in only


def test_a_processor_that_the_k3s_is_not_for(joining: KitSpec, sealer: Sealer, tmp_path: Path) -> None:
    spec = dataclasses.replace(joining, machine=dataclasses.replace(joining.machine, arch="arm64"))
    write_kit(spec, tmp_path / "kit", sealer)
    assert wrong(check_kit(tmp_path / "kit", dataclasses.replace(LOOK, here=True))) == [
        "this machine: is amd64, and the k3s of this kit is for arm64"
    ]


def test_a_machine_that_is_this_sites_has_its_room_already(full_kit: Path) -> None:
    machine = dataclasses.replace(MACHINE, disk_mb=10, site="plant-08")
    assert not wrong(check_kit(full_kit, dataclasses.replace(LOOK, machine=machine, here=True)))


def test_without_the_schemas_it_is_said_that_nothing_was_validated(full_kit: Path) -> None:
    assert "manifests were not validated" in minded(check_kit(full_kit, dataclasses.replace(LOOK, validate=None)))


def test_the_schemas_object() -> None:
    validate = validator()
    assert validate is not None
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a, imagge: b}]}\n"
    assert validate(pod, []).startswith("Pod x, Kubernetes 1.32: ")
    assert validate(pod.replace("imagge", "image"), [35]) == ""
    assert "Sprocket" in validate("apiVersion: v1\nkind: Sprocket\nmetadata: {name: x}\n", [])


def test_a_site_file_that_its_own_reader_refuses(full_kit: Path) -> None:
    def refuse(_: Path) -> str:
        raise RejectedError("site.yaml: no")

    assert wrong(check_kit(full_kit, dataclasses.replace(LOOK, read_site=refuse))) == ["site.yaml: no"]
    found = wrong(check_kit(full_kit, dataclasses.replace(LOOK, read_site=lambda _: "plant-99")))
    assert found == ["site.yaml is of plant-99, the kit of plant-08"]


def test_a_folder_that_is_no_kit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is it the folder of a kit"):
        check_kit(tmp_path, LOOK)


def test_a_signature_that_was_taken_out_is_missed(joining: KitSpec, sealer: Sealer, tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    write_kit(joining, kit, sealer)
    (kit / "SHA256SUMS.sig").unlink()
    wrong = [each for each in check_kit(kit, LOOK) if each.grade == "wrong"]
    assert [each.what for each in wrong] == ["the signature that this kit had is gone (SHA256SUMS.sig)"]
    assert "ask for a new one" in wrong[0].do


def test_this_machine_is_read_as_its_kernel_has_it() -> None:
    machine = read_machine()
    assert machine.arch in ("amd64", "arm64")
    assert machine.cores >= 1
    assert machine.memory_mb > 100
    assert machine.disk_mb > 0
