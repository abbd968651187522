"""Is this kit what somebody signed, does it fit, and would the machine that is to be its node carry it?"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_k3s import kitenv, sealing
from edge_k3s.kitenv import KitFacts
from edge_k3s.machine import MachineFacts
from edge_k3s.names import minor_of
from edge_k3s.validating import Validator
from edge_models.errors import ConfigError, KitError, RejectedError, RetryableError
from edge_sync.enrol.token import parse_token

Grade = Literal["good", "mind", "wrong"]

_DAY_S = 86_400
_INSTALLED = frozenset({"airgap", "manifests", "node", "release"})
"""Folders that a machine is made from: what lies in them is under the signature, or the kit is refused."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    grade: Grade
    what: str
    """What, or what is wrong with it."""
    do: str = ""
    """What to do about it."""


@dataclass(frozen=True, slots=True)
class TokenState:
    """What the hub says of the newest join token of a site."""

    state: str
    """`open`, `spent`, `void` or `expired`."""
    expires_s: int
    """UTC seconds."""


@dataclass(frozen=True, slots=True)
class Look:
    """With what eyes a kit is looked at."""

    now_s: int
    """UTC seconds."""
    version: str
    """Of the edge-agent that looks."""
    root: bytes | None = None
    """The operator's root of trust, had by another way than the kit."""
    validate: Validator | None = None
    """Of Kubernetes objects; None where the schemas are not installed."""
    read_site: Callable[[Path], str] | None = None
    """The site's own reader of its site file, which returns the site's id. Raises `KitError`."""
    ask_hub: Callable[[Path, str], None] | None = None
    """`(site file, pin)`: ask the hub for its CA. Raises `RejectedError` where it has another than the token's, and
    `RetryableError` where it does not answer. None: it is not asked."""
    ask_tokens: Callable[[], Mapping[str, TokenState]] | None = None
    """Ask the hub's API for its join tokens, by site. Raises `RejectedError`, `RetryableError`. None: it is not
    asked, and a token counts as good by its date."""
    machine: MachineFacts | None = None
    here: bool = False
    """Whether `machine` is to be the node: then it has to fit. Else it is somebody's desk, and not judged."""


def check_kit(kit: Path, look: Look) -> list[Finding]:
    """Everything that was found, in the order a person wants to know. Raises `ConfigError` where there is no kit."""
    try:
        sums = (kit / sealing.SUMS).read_bytes()
    except OSError as error:
        raise ConfigError(f"{kit}: no {sealing.SUMS} ({error.strerror}): is it the folder of a kit?") from None
    found = list(_whole(kit, sums))
    found += _signed(kit, sums, look)
    if any(each.grade == "wrong" for each in found):
        return found  # what else it says is anybody's word
    try:
        facts = kitenv.read_env((kit / kitenv.NAME).read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return [*found, Finding("wrong", f"no readable {kitenv.NAME}", "ask for a new kit")]
    except RejectedError as error:
        return [*found, Finding("wrong", str(error))]
    found += _versions(facts, look)
    found += _site(kit, facts, look)
    found += _token(kit, facts, look)
    found += _manifests(kit, facts, look.validate)
    found += _machine(facts, look)
    return found


def _whole(kit: Path, sums: bytes) -> Iterator[Finding]:
    try:
        named = sealing.read_sums(sums)
    except RejectedError as error:
        yield Finding("wrong", str(error), "the kit was tampered with: ask for a new one")
        return
    bad = [f"{path} {why}" for path, digest in named.items() if (why := _differs(kit / path, digest))]
    if bad:
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        yield Finding("wrong", f"{bad[0]}{more}", "the kit is damaged or was tampered with: ask for a new one")
        return
    yield Finding("good", f"all {len(named)} files are as they were made")
    beside = {sealing.SUMS, sealing.SIGNATURE}
    present = {path.relative_to(kit).as_posix() for path in kit.rglob("*") if path.is_symlink() or path.is_file()}
    strange = sorted(path for path in present - set(named) - beside if not path.startswith("data/"))
    among = [path for path in strange if path.partition("/")[0] in _INSTALLED]
    if among:
        yield Finding("wrong", f"{among[0]} is no part of the kit", "somebody put it there: ask for a new one")
    elif strange:
        yield Finding("mind", f"{strange[0]} is no part of the kit", "nothing reads it; see who put it there")


def _differs(path: Path, digest: str) -> str:
    try:
        if path.is_symlink():
            return "is a link"
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if found == digest else "was changed"


def _signed(kit: Path, sums: bytes, look: Look) -> Iterator[Finding]:
    try:
        signature = (kit / sealing.SIGNATURE).read_bytes()
    except OSError:
        if _names(sums, sealing.KEY):  # which only signed kits bring
            again = "copy all of the kit again, or ask for a new one"
            yield Finding("wrong", f"the signature that this kit had is gone ({sealing.SIGNATURE})", again)
            return
        grade: Grade = "wrong" if look.root is not None else "mind"
        yield Finding(grade, "it is not signed", "ask for a signed kit: edge-agent node provision … --trust DIR")
        return
    try:
        own = sealing.targets_keys((kit / "root.json").read_bytes())
        trusted = own if look.root is None else sealing.targets_keys(look.root)
        key = sealing.verify(sums, signature, trusted)
    except OSError:
        yield Finding("wrong", "no root.json in it", "ask for a new kit")
    except RejectedError as error:
        yield Finding("wrong", str(error), "the kit is somebody else's, or was tampered with: ask for a new one")
    else:
        whose = "your root" if look.root is not None else "its own root.json"
        yield Finding("good", f"signed by {key}, a key of {whose}")
        if look.root is None:
            yield Finding("mind", "whose root that is was not looked at", "--root FILE holds it against yours")


def _names(sums: bytes, path: str) -> bool:
    try:
        return path in sealing.read_sums(sums)
    except RejectedError:  # told already
        return False


def _versions(facts: KitFacts, look: Look) -> Iterator[Finding]:
    if _parts(facts.kit_version) > _parts(look.version):
        remedy = f"check it with edge-agent {facts.kit_version}"
        yield Finding("mind", f"made by edge-agent {facts.kit_version}, looked at by {look.version}", remedy)
    k3s = "no k3s: the node must have one"
    if facts.arch or facts.k3s_version:
        k3s = f"k3s {facts.k3s_version or 'of a version that was not said'} for {facts.arch or 'any processor'}"
    if facts.k3s_version:
        try:
            minor_of(facts.k3s_version)
        except ConfigError as error:
            yield Finding("wrong", str(error))
            return
    yield Finding("good", f"{facts.site}, release {facts.release}, {facts.image}, {k3s}")


def _site(kit: Path, facts: KitFacts, look: Look) -> Iterator[Finding]:
    if look.read_site is None:
        return
    try:
        site = look.read_site(kit / "site.yaml")
    except KitError as error:
        yield Finding("wrong", str(error))
        return
    if site != facts.site:
        yield Finding("wrong", f"site.yaml is of {site}, the kit of {facts.site}", "ask for a new kit")


def _token(kit: Path, facts: KitFacts, look: Look) -> Iterator[Finding]:
    now_s = look.now_s
    again = f"ask for a new kit: edge-agent node provision {facts.site} --replace"
    if now_s + _DAY_S < facts.made_s:
        yield Finding("mind", "this machine's clock is behind the day the kit was made", "set it if you can")
    if facts.token_expires_s is None:
        return
    try:
        token = parse_token((kit / "secrets" / "join.token").read_text("ascii"))
    except (OSError, UnicodeDecodeError, RejectedError):
        yield Finding("wrong", "no readable join token", again)
        return
    if token.name != facts.site:
        yield Finding("wrong", f"the join token is for {token.name}, not for {facts.site}", again)
    elif now_s >= facts.token_expires_s:
        # A node that is this site's already used it in time: installing it again needs none.
        used = look.machine is not None and look.machine.site == facts.site
        ended = f"the join token ended {_ago(now_s - facts.token_expires_s)} ago"
        yield Finding("mind" if used else "wrong", ended, "" if used else again)
    else:
        good = f"the join token is good for {_ago(facts.token_expires_s - now_s)}"
        yield _at_hub(facts, facts.token_expires_s, look, good, again)
        if look.ask_hub is not None:
            yield _asked(look.ask_hub, kit / "site.yaml", token.pin)


def _at_hub(facts: KitFacts, expires_s: int, look: Look, good: str, again: str) -> Finding:
    """What the hub says of a token whose date is good; what the date says, where it is not asked."""
    if look.ask_tokens is None:
        how = "whether it is spent, the hub's API knows: --ask-hub with --hub-dir, or with --hub and --token-file"
        return Finding("good", f"{good}, by its date", how)
    try:
        known = look.ask_tokens().get(facts.site)
    except (RejectedError, RetryableError) as error:
        return Finding("mind", f"{good}, by its date; {error}", "ask it from where its API can be reached")
    if known is None:
        return Finding("wrong", f"the hub knows no join token of {facts.site}", again)
    if known.expires_s != expires_s:
        return Finding("wrong", "the hub has made a newer join token: this kit's counts no more", "take the newer kit")
    if known.state == "spent":
        return _spent(facts, look, again)
    if known.state != "open":
        return Finding("wrong", f"the join token is {known.state}, says the hub", again)
    return Finding("good", f"{good}, says the hub")


def _spent(facts: KitFacts, look: Look, again: str) -> Finding:
    if look.machine is not None and look.machine.site == facts.site:
        return Finding("good", "the join token is spent: this machine is its node already")
    grade: Grade = "wrong" if look.here else "mind"  # here nobody could join with it
    return Finding(grade, "the join token is spent: a machine has joined with it", f"if that is not its node: {again}")


def _asked(ask_hub: Callable[[Path, str], None], site: Path, pin: str) -> Finding:
    try:
        ask_hub(site, pin)
    except RetryableError as error:
        return Finding("mind", str(error), "ask it from where the site will be")
    except RejectedError as error:
        return Finding("wrong", str(error), "the kit is for another hub, or somebody is in its place: do not use it")
    return Finding("good", "the hub answers, and is the one that the token names")


def _manifests(kit: Path, facts: KitFacts, validate: Validator | None) -> Iterator[Finding]:
    if validate is None:
        yield Finding("mind", "manifests were not validated", "pip install kubernetes-validate, where you want that")
        return
    minors = [minor_of(facts.k3s_version)] if facts.k3s_version else []
    for path in sorted((kit / "manifests").glob("*.yaml")):
        if wrong := validate(path.read_text("utf-8"), minors):
            yield Finding("wrong", f"manifests/{path.name}: {wrong}", "ask for a new kit")
            return
    yield Finding("good", "every manifest is valid")


def _machine(facts: KitFacts, look: Look) -> Iterator[Finding]:
    if look.machine is None or not look.here:
        return
    wrong = [Finding("wrong", f"this machine: {what}", do) for what, do in _misfits(facts, look.machine)]
    yield from wrong or [Finding("good", "this machine is large enough, and has a default route")]


def _misfits(facts: KitFacts, machine: MachineFacts) -> Iterator[tuple[str, str]]:
    larger = "take a larger one"
    if facts.arch not in (None, machine.arch):
        yield f"is {machine.arch}, and the k3s of this kit is for {facts.arch}", "take another machine or kit"
    if machine.cores < facts.cores:
        yield f"{machine.cores} processor cores, and this kit needs {facts.cores}", larger
    if machine.memory_mb < facts.memory_mb:
        yield f"{machine.memory_mb} MB of memory, and this kit needs {facts.memory_mb}", larger
    if machine.disk_mb < facts.disk_mb and machine.site != facts.site:
        yield f"{machine.disk_mb} MB free in {machine.disk_path}, and this kit needs {facts.disk_mb}", larger
    if not machine.has_route:
        yield "no default route, and k3s does not start without one", "connect its network, or install.sh --add-route"
    if machine.site not in (None, facts.site):
        yield (
            f"is a node of {machine.site} already, or holds what that remembers",
            "take another machine, or, if all that it remembers shall go for ever: "
            "sudo sh /var/lib/edge-agent-kit/install.sh --uninstall --purge",
        )


def _ago(seconds: int) -> str:
    days, hours = divmod(seconds // 3600, 24)
    return (
        f"{days} days" if days > 1 else f"{days * 24 + hours} hours" if seconds >= 3600 else f"{seconds // 60} minutes"
    )


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
