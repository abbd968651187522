"""Measures against the truth, by hand and by their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_models.build import metrics


def test_accuracy_and_macro_f1_by_hand() -> None:
    # Label 0: 2 right of 2 seen and 3 true, F1 0.8. Label 1: 1 right of 2 seen and 1 true, F1 2/3.
    seen, truth = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
    assert metrics.accuracy(seen, truth) == pytest.approx(0.75)
    assert metrics.macro_f1(seen, truth) == pytest.approx((0.8 + 2 / 3) / 2)


def test_a_label_in_neither_is_left_out_and_one_in_either_counts() -> None:
    assert metrics.macro_f1(np.array([2, 0]), np.array([2, 0])) == 1.0
    assert metrics.macro_f1(np.array([3, 0]), np.array([2, 0])) == pytest.approx(1 / 3)
    assert list(metrics.per_class(np.array([3, 0]), np.array([2, 0]))) == [0, 2, 3]


def test_each_label_by_hand() -> None:
    seen, truth = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    quality = metrics.per_class(seen, truth)
    assert quality[0] == metrics.ClassQuality(precision=0.5, recall=0.5, f1=0.5, samples=2)
    assert quality[1] == metrics.ClassQuality(precision=2 / 3, recall=2 / 3, f1=2 / 3, samples=3)
    never = metrics.per_class(np.array([0]), np.array([4]))
    assert (never[0].precision, never[0].recall, never[4].recall, never[4].f1) == (0, 0, 0, 0)


def test_confusion_has_the_truth_in_rows() -> None:
    table = metrics.confusion(np.array([1, 1, 2]), np.array([0, 0, 2]), 3)
    assert table.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]


labels = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@given(labels)
def test_what_the_confusion_matrix_says_is_what_the_measures_say(pairs: list[tuple[int, int]]) -> None:
    seen, truth = (np.array(part) for part in zip(*pairs, strict=True))
    table = metrics.confusion(seen, truth, 5)
    assert table.trace() / table.sum() == pytest.approx(metrics.accuracy(seen, truth))
    for label, quality in metrics.per_class(seen, truth).items():
        assert quality.samples == table[label].sum()
        assert quality.recall * max(table[label].sum(), 1) == pytest.approx(table[label, label])
        assert quality.precision * max(table[:, label].sum(), 1) == pytest.approx(table[label, label])


def test_auc_by_hand() -> None:
    # Of the four pairs of a positive and a negative, three are in order: 0.75.
    truth = np.array([0, 0, 1, 1])
    positive = np.array([0.1, 0.4, 0.35, 0.8])
    assert metrics.auc(np.stack([1 - positive, positive], axis=1), truth) == pytest.approx(0.75)


def test_scores_that_say_nothing_have_half_the_area() -> None:
    assert metrics.auc(np.full((6, 3), 0.25), np.array([0, 1, 2, 0, 1, 2])) == pytest.approx(0.5)


def test_auc_of_one_label_alone_is_not_defined() -> None:
    assert metrics.auc(np.ones((3, 2)), np.array([1, 1, 1])) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_order_with_ties_as_half(pairs: list[tuple[int, int]]) -> None:
    values, truth = (np.array(part) for part in zip(*pairs, strict=True))
    area = metrics.auc(np.stack([-values, values], axis=1).astype(float), truth)
    ordered = [
        1.0 if high > low else 0.5 if high == low else 0.0 for high in values[truth == 1] for low in values[truth == 0]
    ]
    assert area is None if not ordered else area == pytest.approx(np.mean(ordered))


TURNS = np.array([0, 10, 25, 90, 100]) * np.pi / 180
VECTORS = np.stack([np.cos(TURNS), np.sin(TURNS)], axis=1).astype(np.float32)
"""Five directions; the nearest to each: 1, 0, 1, 4, 3."""


def test_a_text_never_finds_itself() -> None:
    relevant = [[1], [0], [1], [4], [3]]
    assert metrics.recall_at(VECTORS, relevant, (1,)) == {1: 1.0}
    assert metrics.recall_at(VECTORS, [[row] for row in range(5)], (1, 5)) == {}


def test_recall_counts_who_asks_by_the_best_of_what_is_relevant() -> None:
    # Row 0 wants 2 or 4: 2 is its second nearest. Row 3 wants 0: its last. The others ask nothing.
    found = metrics.recall_at(VECTORS, [[4, 2], [], [], [0], []], (1, 2, 3, 4))
    assert found == {1: 0.0, 2: 0.5, 3: 0.5, 4: 1.0}


def test_lengths_do_not_matter_and_vectors_all_alike_find_nothing() -> None:
    longer = VECTORS * np.array([[1], [100], [0.01], [5], [7]], dtype=np.float32)
    relevant = [[2], [3], [4], [0], [1]]
    assert metrics.recall_at(longer, relevant, (1, 2, 3)) == metrics.recall_at(VECTORS, relevant, (1, 2, 3))
    assert metrics.recall_at(np.ones((5, 2)), relevant, (1, 3)) == {1: 0.0, 3: 0.0}


def test_recall_over_more_queries_than_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(1).normal(size=(50, 4))
    relevant = [[(row * 7 + 1) % 50] for row in range(50)]
    whole = metrics.recall_at(vectors, relevant, (1, 10, 49))
    monkeypatch.setattr(metrics, "_QUERIES", 7)
    assert metrics.recall_at(vectors, relevant, (1, 10, 49)) == whole
    assert whole[49] == 1.0


def test_cosines_by_hand() -> None:
    ours = np.array([[1, 0], [0, 2], [0, 0], [0, 0], [1, 1]])
    theirs = np.array([[1, 1], [0, 5], [1, 0], [0, 0], [-1, -1]])
    assert metrics.cosines(ours, theirs).tolist() == pytest.approx([0.5**0.5, 1, 0, 1, -1])


def test_fields_are_exact_to_the_letter_or_not_at_all() -> None:
    came = [{"price": "1.99", "sku": "12"}, {"price": "2.50"}, {"price": "3.0", "name": "tea"}]
    true = [{"price": "1.99", "sku": "12 "}, {"price": "2.50", "sku": "7"}, {"price": "3.00"}]
    assert metrics.exact_fields(came, true) == {"price": (2, 3), "sku": (0, 2)}


def test_a_row_that_only_asks_is_not_found() -> None:
    # Row 1 is nearest to row 0, and asks itself for row 2: a memory holds no questions.
    assert metrics.recall_at(VECTORS, [[2], [2], [], [], []], (1,)) == {1: 1.0}
