"""Models are swapped while requests run, and none of them notices."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from edge_agent.inference.model import Model
from edge_agent.inference.registry import Models
from edge_agent.inference.stats import BUCKETS_S
from edge_models.bundle import Bundle


def test_swap_replaces_the_whole_set(make_bundle: Callable[..., Bundle]) -> None:
    models = Models()
    assert models.names() == []
    assert models.get("pump") is None
    pump, fan = Model(make_bundle()), Model(make_bundle(name="fan"))
    models.swap({"pump": pump, "fan": fan})
    assert models.names() == ["fan", "pump"]
    models.swap({"fan": fan})
    assert models.get("pump") is None
    assert models.get("fan") is fan


def test_a_swapped_set_cannot_be_changed_from_outside(bundle: Bundle) -> None:
    models, given = Models(), {"pump": Model(bundle)}
    models.swap(given)
    given.clear()
    assert models.names() == ["pump"]


def test_every_request_under_ten_swaps_is_answered_by_one_model(make_bundle: Callable[..., Bundle]) -> None:
    old, new = make_bundle(), make_bundle(turned=True, version="2")
    inputs = {"window": np.arange(8, dtype=np.float32)[np.newaxis]}
    models = Models()
    first = Model(old)
    models.swap({"pump": first})
    answers = {old.digest: first.predict(inputs), new.digest: Model(new).predict(inputs)}
    assert answers[old.digest] != answers[new.digest]
    stop = threading.Event()
    done: dict[str, int] = {}
    wrong: list[object] = []

    def ask(me: str) -> None:
        count = 0
        while not stop.is_set():
            model = models.get("pump")
            if model is None:
                wrong.append("no model")
                break
            with models.measured("pump"):
                predictions = model.predict(inputs)
            if predictions != answers[model.digest]:
                wrong.append(predictions)
            count += 1
            done[me] = count

    threads = [threading.Thread(target=ask, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    seen = set()
    for turn in range(10):
        models.swap({"pump": Model(new if turn % 2 == 0 else old)})
        active = models.get("pump")
        assert active is not None
        seen.add(active.digest)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert wrong == []
    assert len(seen) == 2
    stats = models.stats()["pump"]
    assert stats.failures == 0
    assert stats.requests == sum(stats.buckets) == sum(done.values()) > 0


def test_failures_are_counted_and_go_on() -> None:
    models = Models()
    with pytest.raises(KeyError), models.measured("pump"):
        raise KeyError("x")
    stats = models.stats()["pump"]
    assert (stats.requests, stats.failures) == (1, 1)
    assert len(stats.buckets) == len(BUCKETS_S) + 1
