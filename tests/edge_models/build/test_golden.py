"""Golden samples are a fair draw."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_models.build.golden import draw


@given(st.lists(st.integers(1, 60), min_size=2, max_size=8), st.data())
def test_a_draw_holds_each_class_in_its_share(counts: list[int], data: st.DataObject) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    samples = data.draw(st.integers(len(counts), len(labels)))
    chosen = draw(labels, samples)
    assert len(set(chosen.tolist())) == len(chosen)
    seen = np.bincount(labels[chosen], minlength=len(counts))
    assert seen.min() >= 1
    assert np.all(seen <= counts)
    # A class too small for a share still gets one, so the whole may be larger by at most that many.
    assert samples <= len(chosen) <= samples + len(counts)
    assert np.all(np.abs(seen - np.array(counts) * samples / len(labels)) <= 1)


def test_the_same_labels_give_the_same_draw() -> None:
    labels = np.array([0, 1] * 50)
    assert draw(labels, 20).tolist() == draw(labels, 20).tolist()
