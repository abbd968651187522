"""A site behind a bad link: slow, lossy, breaking in the middle of a packet, or silent without a word."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.chaos.conftest import Site, World
    from tests.integration.chaos.wan.conftest import Relay, Wire

    Until = Callable[..., Any]

BAD = {"loss": 0.10, "delay_s": 0.3, "jitter_s": 0.1}


def behind(world: "World", link: "Relay | Wire", rate_per_s: int) -> "Site":
    """A site that reaches its broker over this link only."""
    site = world.add(world.settings("plant-01", rate_per_s, **link.link))
    site.before = link.before
    site.quiet(False).begin()
    world.runs(site)
    return site


def weather(link: "Relay | Wire", **what: Any) -> None:
    """Change it."""
    link.weather = type(link.weather)(**what)


@pytest.mark.parametrize("world", ["mosquitto", pytest.param("amqtt", marks=pytest.mark.long)], indirect=True)
def test_a_link_that_is_slow_and_breaks_in_the_middle_of_packets_loses_and_doubles_nothing(
    world: "World", relay: "Relay", until: "Until"
) -> None:
    site = behind(world, relay, 50)
    held = world.hub.held("plant-01")
    weather(relay, **BAD, cut_bytes=20_000)
    until(lambda: relay.cuts >= 4 and world.hub.held("plant-01") > held + 100, "cuts, and records all the same", 60)
    weather(relay, **BAD)
    world.runs(site)
    weather(relay)
    world.settle(site)


@pytest.mark.parametrize("world", ["mosquitto"], indirect=True)
def test_packets_lost_late_doubled_and_out_of_order_lose_and_double_nothing(
    world: "World", wire: "Wire", until: "Until"
) -> None:
    site = behind(world, wire, 20)
    held = world.hub.held("plant-01")
    weather(wire, **BAD, doubled=0.05)
    until(lambda: world.hub.held("plant-01") > held + 200 and wire.lost > 20, "records over a bad link", 60)
    assert wire.doubled > 0
    site.kill()  # and a session that begins in this weather
    site.begin()
    held = world.hub.held("plant-01")
    until(lambda: world.hub.held("plant-01") > held + 100, "records over a bad link", 60)
    weather(wire)
    world.settle(site)


@pytest.mark.parametrize("world", ["mosquitto"], indirect=True)
@pytest.mark.timeout(240)
def test_a_silence_longer_than_keepalive_is_noticed_on_both_sides_and_loses_nothing(
    world: "World", long_way: "Relay | Wire", until: "Until"
) -> None:
    """No side is told that the other is gone: the broker says the will, the site connects anew by itself."""
    site = behind(world, long_way, 50)

    def online() -> bool:
        return bool(world.hub.api("GET", "/api/v1/sites/plant-01")["online"])

    until(online, "the site to be online")
    assert "link_down" not in site.log()
    long_way.silence()
    decided = site.decided()
    until(lambda: not online(), "the hub to hear that the site is gone", 90)
    until(lambda: "link_down" in site.log(), "the site to notice", 90)
    until(lambda: site.decided() > decided + 1_000, "the site to go on deciding", 60)
    long_way.mend()
    world.runs(site)
    until(online, "the site to be online")
    world.settle(site)
