"""A broker that comes back with nothing of what it kept, or with what it kept long ago."""

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from edge_hub.broker import HUB
from edge_sync.documents import Presence
from edge_sync.mqtt import Broker, Event, Link, Message, Up

if TYPE_CHECKING:
    from tests.integration.chaos.conftest import Process, World

    Until = Callable[..., Any]


def retained(world: "World", until: "Until", topic: str) -> dict[str, bytes]:
    """What the broker keeps, as it tells one who comes anew; the hub is down meanwhile, whose user this takes."""
    world.hub.kill()
    heard: list[Event] = []
    secret = world.brokers.service_user(HUB, "hub")
    link = Link(Broker(world.broker.url, HUB, HUB, secret, reconnect_max_s=1), heard.append, [(topic, 1)])
    link.start()
    try:
        until(lambda: any(isinstance(event, Up) for event in heard), "a connection")
        until(lambda: any(isinstance(event, Message) and event.retained for event in heard), "what is retained")
    finally:
        link.close()
        world.hub.begin()
    return {event.topic: event.payload for event in heard if isinstance(event, Message) and event.retained}


def online(world: "World", site: str) -> bool:
    """Whether the hub says so."""
    return world.hub.ready() and bool(world.hub.api("GET", f"/api/v1/sites/{site}")["online"])


@pytest.mark.parametrize("world", ["mosquitto", pytest.param("amqtt", marks=pytest.mark.long)], indirect=True)
def test_a_broker_without_its_store_is_told_again_and_a_site_that_died_meanwhile_is_not_online(
    world: "World", until: "Until"
) -> None:
    """Nobody says the will of a site that died while its broker was dead."""
    site, dying = (world.add(world.settings(name)) for name in ("plant-01", "plant-02"))
    for each in (site, dying):
        each.begin()
    for each in (site, dying):
        world.runs(each)
        until(lambda each=each: online(world, each.site), f"{each.site} to be online")
    world.broker.kill()
    dying.kill()
    world.broker.begin()
    world.runs(site)
    until(lambda: online(world, "plant-01"), "the living site to be online")
    until(lambda: not online(world, "plant-02"), "the dead site to be offline")

    kept = retained(world, until, "edge/v1/+/up/presence")
    assert list(kept) == ["edge/v1/plant-01/up/presence"]
    said = Presence.model_validate_json(kept["edge/v1/plant-01/up/presence"])
    assert said.online
    assert said.epoch == max(site.lasts(), key=lambda stream: site.lasts()[stream])[0]
    world.runs(site)
    until(lambda: online(world, "plant-01"), "the living site to be online, at a hub that began anew")
    world.settle(site)


@pytest.mark.parametrize("world", ["mosquitto"], indirect=True)
def test_mosquitto_goes_on_without_its_store_and_with_one_that_is_too_old(
    world: "World", until: "Until", other_mosquitto: Callable[[str], "Process"]
) -> None:
    """The hub's own mosquitto keeps nothing; this one does, as somebody else's may."""
    store, old = world.folder / "store", world.folder / "store.old"
    store.mkdir()
    settings = (world.brokers.path / "mosquitto.conf").read_text()
    assert "persistence false" in settings
    broker = other_mosquitto(settings.replace("persistence false", f"persistence true\npersistence_location {store}/"))
    site = world.add(world.settings("plant-01"))
    site.begin()
    world.runs(site)
    until(lambda: online(world, "plant-01"), "the site to be online")
    broker.stop()
    assert (store / "mosquitto.db").stat().st_size > 0
    shutil.copytree(store, old)

    shutil.rmtree(store)
    store.mkdir()
    broker.begin()
    world.runs(site)
    until(lambda: online(world, "plant-01"), "the site to be online over an empty broker")

    site.kill()
    until(lambda: not online(world, "plant-01"), "the will")
    broker.stop()
    shutil.rmtree(store)
    shutil.copytree(old, store)
    world.hub.kill()
    broker.begin()
    world.hub.begin()
    site.begin()
    world.runs(site)
    until(lambda: online(world, "plant-01"), "the site's new process to be online, not its old one")
    kept = retained(world, until, "edge/v1/+/up/presence")
    said = Presence.model_validate_json(kept["edge/v1/plant-01/up/presence"])
    assert said.online
    world.settle(site)
