"""Measures of a classifier, and answers in chunks."""

import numpy as np
import pytest

from edge_models.build.evaluate import CHUNK_SAMPLES, answers, quality
from edge_models.bundle import read_bundle
from edge_models.shipped import shipped_path


def test_accuracy_and_macro_f1_by_hand() -> None:
    # Label 0: 2 right of 2 seen and 3 true, F1 0.8. Label 1: 1 right of 2 seen and 1 true, F1 2/3.
    measured = quality(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))
    assert measured.accuracy == pytest.approx(0.75)
    assert measured.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)


def test_a_label_in_neither_is_left_out() -> None:
    assert quality(np.array([2, 0]), np.array([2, 0])).macro_f1 == 1.0


def test_many_samples_are_answered_in_order() -> None:
    bundle = read_bundle(shipped_path("shuttle", "2"))
    times = 2 * CHUNK_SAMPLES // len(bundle.golden.truth) + 1
    inputs = {name: np.tile(array, (times, 1)) for name, array in bundle.golden.inputs.items()}
    expected = np.tile(bundle.golden.outputs["probabilities"], (times, 1))
    np.testing.assert_allclose(answers(bundle.graph, inputs)["probabilities"], expected, rtol=0, atol=0.02)
