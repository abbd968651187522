"""Judging answers by the task: against the truth, and against another model's."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_models.build.measure import Measured, agreement, classes, judge, likeness, measure
from edge_models.build.run import Answers
from edge_models.build.samples import Samples
from edge_models.bundle import Bundle, read_bundle
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.npy import Array
from edge_models.shipped import shipped_path
from edge_models.steps import Reading
from edge_models.tensors import TensorSpec

INPUT = TensorSpec("x", ("batch", 2), "float32")
KIND = Contract(
    "kind", "1", "classification", (INPUT,), (TensorSpec("p", ("batch", 3), "float32"),), ("a", "b", "c"), "p"
)
VECTOR = Contract("vector", "1", "embedding", (INPUT,), (TensorSpec("v", ("batch", 2), "float32"),), embedding="v")
LABEL = Contract("label", "1", "reading", (INPUT,), (TensorSpec("m", ("batch", 2), "float32"),), ("priced", "other"))
RAW = Contract(
    "raw",
    "1",
    "tensors",
    (INPUT,),
    (TensorSpec("one", ("batch", 1), "float32"), TensorSpec("many", ("batch", 2), "float32")),
)


def samples(number: int, truth: tuple[Any, ...] | None = None) -> Samples:
    return Samples({"x": np.zeros((number, 2), dtype=np.float32)}, truth)


def scores(*rows: tuple[float, ...]) -> Answers:
    return Answers({"p": np.array(rows, dtype=np.float32)})


def golden_samples(bundle: Bundle) -> Samples:
    return Samples(bundle.golden.inputs, bundle.golden.truth)


def test_a_real_classifier_is_measured_as_its_golden_samples_say() -> None:
    bundle = read_bundle(shipped_path("trace", "1"))
    measured = measure(bundle.contract, bundle.graph, bundle.files, golden_samples(bundle))
    right = [
        bundle.contract.labels[index] == true
        for index, true in zip(
            bundle.golden.outputs[bundle.contract.scores].argmax(1), bundle.golden.truth, strict=True
        )
    ]
    assert next(iter(measured.metrics)) == "accuracy"
    assert measured.metrics["accuracy"] == pytest.approx(np.mean(right))
    assert 0.5 < measured.metrics["accuracy"] < 1
    assert measured.confusion is not None
    assert sum(map(sum, measured.confusion)) == len(bundle.golden.truth)
    assert sum(measured.confusion[i][i] for i in range(4)) == sum(right)
    assert measured.per_class is not None
    assert {label: each["samples"] for label, each in measured.per_class.items()} == {
        label: bundle.golden.truth.count(label) for label in measured.per_class
    }


def test_two_real_models_agree_with_themselves_more_than_with_each_other() -> None:
    one, two = (read_bundle(shipped_path("trace", version)) for version in ("1", "2"))
    first, second = (
        measure(bundle.contract, bundle.graph, bundle.files, golden_samples(two)).answers for bundle in (one, two)
    )
    assert agreement(one.contract, first, first) == 1.0
    same = classes(one.contract, first) == classes(one.contract, second)
    assert agreement(one.contract, first, second) == pytest.approx(same.mean())
    assert 0 < same.mean() < 1


def test_without_truth_there_are_answers_and_no_metrics() -> None:
    came = scores((1, 0, 0))
    assert judge(KIND, came, samples(1)) == Measured({}, came)
    raw = Answers({"one": np.ones((1, 1)), "many": np.ones((1, 2))})
    assert judge(RAW, raw, samples(1, ("whatever",))).metrics == {}


def test_classes_of_a_single_true_label_have_no_auc() -> None:
    came = scores((0.8, 0.1, 0.1), (0.1, 0.8, 0.1))
    assert judge(KIND, came, samples(2, ("a", "a"))).metrics == {"accuracy": 0.5, "macro_f1": pytest.approx(1 / 3)}
    assert list(judge(KIND, came, samples(2, ("a", "b"))).metrics) == ["accuracy", "macro_f1", "auc"]


def test_a_label_that_the_contract_does_not_have_is_named() -> None:
    with pytest.raises(RejectedError, match="sample 1: the true label 'z' is not one of the contract's"):
        judge(KIND, scores((1, 0, 0), (1, 0, 0)), samples(2, ("a", "z")))


def test_as_many_scores_as_labels() -> None:
    with pytest.raises(RejectedError, match=r"output 'p' is \(1, 2\), which does not fit the contract's 3 labels"):
        judge(KIND, Answers({"p": np.ones((1, 2), dtype=np.float32)}), samples(1, ("a",)))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(wrong: float) -> None:
    with pytest.raises(RejectedError, match=r"output 'p' is no number for sample 1 \(1 in all\)"):
        judge(KIND, scores((1, 0, 0), (0, wrong, 0)), samples(2, ("a", "a")))


def test_the_confusion_of_many_labels_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_models.build.measure.MAX_CONFUSION_LABELS", 2)
    measured = judge(KIND, scores((1, 0, 0)), samples(1, ("a",)))
    assert measured.confusion is None
    assert measured.per_class is not None


VECTORS: Array = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], dtype=np.float32)


def test_an_embedding_is_measured_by_what_it_finds() -> None:
    truth: tuple[Any, ...] = ({"relevant": [1]}, {"relevant": []}, {"relevant": [0]}, None)
    measured = judge(VECTOR, Answers({"v": VECTORS}), samples(4, truth))
    assert measured.metrics == {"recall_at_1": 0.5, "recall_at_5": 1.0, "recall_at_10": 1.0}
    assert measured.confusion is None
    assert measured.per_class is None


@pytest.mark.parametrize("wrong", [{"relevant": [4]}, {"relevant": [-1]}, {"relevant": ["1"]}, {"relevant": 1}, "text"])
def test_relevant_rows_that_are_none_are_refused(wrong: object) -> None:
    with pytest.raises(RejectedError, match="sample 1: its truth is not"):
        judge(VECTOR, Answers({"v": VECTORS}), samples(4, ({"relevant": [1]}, wrong, None, None)))


def test_embeddings_agree_by_their_mean_cosine() -> None:
    turned = Answers({"v": VECTORS[:, ::-1].copy()})
    cosines = [0, 0.18 / 0.82, 0, 0.18 / 0.82]
    assert likeness(VECTOR, Answers({"v": VECTORS}), turned).tolist() == pytest.approx(cosines)
    assert agreement(VECTOR, Answers({"v": VECTORS}), turned) == pytest.approx(np.mean(cosines))


def read(*values: dict[str, str]) -> Answers:
    readings = tuple(Reading("priced", 0.9, each) for each in values)
    return Answers({"m": np.zeros((len(values), 2), dtype=np.float32)}, readings)


def test_a_reading_is_exact_by_field_and_by_sample() -> None:
    truth = ({"price": "1.99", "sku": "12"}, {"price": "2.50", "sku": "13"})
    measured = judge(LABEL, read({"price": "1.99", "sku": "12"}, {"price": "2.50", "sku": "l3"}), samples(2, truth))
    assert measured.metrics == {"exact": 0.75, "exact_samples": 0.5}
    assert measured.per_class == {"price": {"exact": 1.0, "samples": 2.0}, "sku": {"exact": 0.5, "samples": 2.0}}


def test_readings_agree_where_all_fields_are_equal() -> None:
    ours = read({"price": "1.99"}, {"price": "2.50"}, {"price": "3.00", "sku": "1"})
    theirs = read({"price": "1.99"}, {"price": "2.5"}, {"price": "3.00"})
    assert agreement(LABEL, ours, theirs) == pytest.approx(1 / 3)


def test_a_truth_that_holds_no_texts_is_refused() -> None:
    with pytest.raises(RejectedError, match="sample 0: its truth is not an object of fields"):
        judge(LABEL, read({}), samples(1, ({"price": 1.99},)))
    assert judge(LABEL, read({}), samples(1, ({},))).metrics == {}


def raw(one: list[float], many: list[list[float]]) -> Answers:
    return Answers({"one": np.array(one)[:, np.newaxis], "many": np.array(many)})


def test_tensors_agree_as_the_output_does_that_differs_most() -> None:
    base = raw([0.1, 0.9], [[1, 0], [0, 1]])
    assert agreement(RAW, base, base) == 1.0
    # A single number has no direction of its own: as (0.1, 0.9) and (0.9, 0.1) these are far apart.
    assert agreement(RAW, raw([0.9, 0.1], [[1, 0], [0, 1]]), base) == pytest.approx(0.18 / 0.82)
    assert agreement(RAW, raw([0.1, 0.9], [[1, 0], [1, 0]]), base) == pytest.approx(0.5)
    assert agreement(RAW, raw([0.1, 0.9], [[1, 0], [np.nan, 1]]), base) == pytest.approx(0.5)
    assert agreement(RAW, raw([0.1, 0.9, 0.9], [[1, 0], [0, 1], [0, 1]]), base) == 0.0


def test_whole_numbers_agree_where_they_are_equal() -> None:
    contract = replace(RAW, outputs=(TensorSpec("n", ("batch",), "int64"),))
    ours, theirs = (Answers({"n": np.array(each)}) for each in ([1, 2, 3, 4], [1, 2, 3, 5]))
    assert agreement(contract, ours, theirs) == 0.75
