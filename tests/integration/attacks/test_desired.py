"""Desired documents, forged and replayed: a site does what its director says, to it, now, of what its operator signed.

Holds promise 7. Each attack is made twice: against a site as it is, and against one without the checks that stop it.
"""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from attacker import Attack, Ground, Made, Victim

from edge_models.shipped import shipped_path
from edge_sync.documents import DESIRED_TYPE
from edge_sync.facts import FACTS_TYPE
from edge_sync.signing import make_key, sign

numbers = count(2)
"""Of releases and generations: each is higher than those before."""


def own_key(ground: Ground, victim: Victim) -> Made:
    """A release that the operator did sign, asked for with a key of the attacker's own."""
    wanted = ground.signed(next(numbers))
    key = ground.folder / f"own-{next(numbers)}.key"
    make_key(key)
    _tell(ground, victim, wanted.envelope(victim.name, next(numbers), key))
    return wanted


def own_key_and_release(ground: Ground, victim: Victim) -> Made:
    """The same for a release that nobody else signed."""
    wanted = ground.make(next(numbers))
    key = ground.folder / f"own-{next(numbers)}.key"
    make_key(key)
    _tell(ground, victim, wanted.envelope(victim.name, next(numbers), key))
    return wanted


def other_type(ground: Ground, victim: Victim) -> Made:
    """The director did sign these bytes, as something else."""
    wanted = ground.signed(next(numbers))
    _tell(ground, victim, sign(wanted.document(victim.name, next(numbers)), FACTS_TYPE, ground.desk.director))
    return wanted


def edited(ground: Ground, victim: Victim) -> Made:
    """The director's signature, over another document."""
    wanted = ground.signed(next(numbers))
    genuine = wanted.envelope(victim.name, next(numbers), ground.desk.director)
    other = sign(wanted.document(victim.name, next(numbers)), DESIRED_TYPE, ground.desk.director)
    payload, signature = other.partition(b',"payloadType"')[0], genuine.partition(b',"payloadType"')[2]
    _tell(ground, victim, payload + b',"payloadType"' + signature)
    return wanted


def director_taken_back(ground: Ground, victim: Victim) -> Made:
    """A director whose key the operator has taken back."""
    key = ground.folder / f"former-{next(numbers)}.key"
    public = make_key(key)
    repository = ground.desk.operator.repository
    repository.add_key("director", lambda _: None, public=public)
    wanted, meanwhile = ground.signed(next(numbers)), ground.signed(next(numbers))
    ground.genuine_trust()
    ground.desired(victim.name, meanwhile.envelope(victim.name, next(numbers), key))
    victim.installs(meanwhile.release.release)
    repository.revoke_key("director", public, lambda _: None)
    ground.desk.hand_over()
    _tell(ground, victim, wanted.envelope(victim.name, next(numbers), key))
    return wanted


def older_generation(ground: Ground, victim: Victim) -> Made:
    """What the site was once told to run, and has left behind."""
    old, new = ground.signed(next(numbers)), ground.signed(next(numbers))
    ground.genuine_trust()
    once = old.envelope(victim.name, next(numbers), ground.desk.director)
    for made, envelope in ((old, once), (new, new.envelope(victim.name, next(numbers), ground.desk.director))):
        ground.desired(victim.name, envelope)
        victim.installs(made.release.release)
    ground.desired(victim.name, once)
    return old


def lower_generation(ground: Ground, victim: Victim) -> Made:
    """One that the site never saw, but older than one that it did."""
    held_back, new = ground.signed(next(numbers)), ground.signed(next(numbers))
    withheld = held_back.envelope(victim.name, next(numbers), ground.desk.director)
    ground.genuine_trust()
    ground.desired(victim.name, new.envelope(victim.name, next(numbers), ground.desk.director))
    victim.installs(new.release.release)
    ground.desired(victim.name, withheld)
    return held_back


def other_site(ground: Ground, victim: Victim) -> Made:
    """A genuine document, but of another site."""
    wanted = ground.signed(next(numbers))
    _tell(ground, victim, wanted.envelope("plant-99", next(numbers), ground.desk.director))
    return wanted


def hub_keys(ground: Ground, victim: Victim) -> Made:
    """All keys that a hub has: they ask for a model that the operator never signed, and deliver it."""
    wanted = ground.make(next(numbers), shipped_path("trace", "2"))
    ground.serve(wanted)
    _tell(ground, victim, wanted.envelope(victim.name, next(numbers), ground.desk.director))
    return wanted


def withdrawn(ground: Ground, victim: Victim) -> Made:
    """What the operator signed once, and has taken back since."""
    wanted = ground.signed(next(numbers))
    ground.tell_trust(victim)
    digest = wanted.release.document_digest.removeprefix("sha256:")
    ground.desk.operator.repository.withdraw(f"agents/{digest}", lambda _: None)
    ground.desk.hand_over()
    _tell(ground, victim, wanted.envelope(victim.name, next(numbers), ground.desk.director))
    return wanted


UNTRUSTED = "not signed by the key this site trusts"
ATTACKS = [
    Attack(own_key, UNTRUSTED, ("desired-signature",)),
    Attack(own_key_and_release, UNTRUSTED, ("desired-signature", "operator-signature")),
    Attack(other_type, "its type is", ("desired-signature",)),
    Attack(edited, UNTRUSTED, ("desired-signature",)),
    Attack(director_taken_back, UNTRUSTED, ("desired-signature",)),
    Attack(older_generation, "is older than", ("desired-generation",)),
    Attack(lower_generation, "is older than", ("desired-generation",)),
    Attack(other_site, "is for site 'plant-99'", ("desired-site",)),
    Attack(hub_keys, "is not signed by the operator", ("operator-signature",)),
    Attack(withdrawn, "is not signed by the operator", ("operator-signature",)),
]
each = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


@pytest.fixture(scope="module")
def scene(kind: Any, grounds: Callable[..., Ground]) -> tuple[Ground, Victim]:
    """A fleet with one site that has all its checks."""
    ground = grounds(kind)
    return ground, ground.victim("plant-01")


@pytest.fixture(scope="module")
def weak_ground(grounds: Callable[..., Ground]) -> Ground:
    """A fleet for sites without one check or another."""
    return grounds()


@each
def test_a_site_refuses_it_and_says_so(scene: tuple[Ground, Victim], attack: Attack) -> None:
    attack.is_refused(*scene)


@each
def test_without_the_check_it_would_succeed(weak_ground: Ground, attack: Attack) -> None:
    attack.succeeds(weak_ground)


def test_behind_the_directors_signature_stands_the_operators(weak_ground: Ground) -> None:
    victim = weak_ground.victim("behind", "desired-signature")
    with victim.refusing("is not signed by the operator"):
        own_key_and_release(weak_ground, victim)
    assert victim.runs() == (1, 0)
    victim.end()


def test_a_stolen_director_chooses_among_what_was_signed_and_only_forwards(scene: tuple[Ground, Victim]) -> None:
    ground, victim = scene
    one, other, last = (ground.signed(next(numbers)) for _ in range(3))
    ground.genuine_trust()
    for chosen in (one, other, one):
        ground.desired(victim.name, chosen.envelope(victim.name, next(numbers), ground.desk.director))
        victim.installs(chosen.release.release)
    generation = victim.runs()[1]
    ground.desired(victim.name, last.envelope(victim.name, generation, ground.desk.director))
    with victim.refusing("is older than"):  # heard after it, so the one before was heard too
        victim.goes_on(20)
        ground.desired(victim.name, last.envelope(victim.name, generation - 1, ground.desk.director))
    assert victim.runs() == (one.release.release, generation)


def _tell(ground: Ground, victim: Victim, envelope: bytes) -> None:
    """The metadata that is genuine, and then this."""
    ground.tell_trust(victim)
    ground.desired(victim.name, envelope)
