from __future__ import annotations

from models.tasks import better


def test_the_metric_decides_whatever_the_loss() -> None:
    best = {"accuracy": 0.8, "loss": 0.3}
    assert better({"accuracy": 0.9, "loss": 0.9}, best, "accuracy", True)
    assert not better({"accuracy": 0.7, "loss": 0.1}, best, "accuracy", True)
    assert better({"wer": 0.1, "loss": 0.9}, {"wer": 0.2, "loss": 0.3}, "wer", False)
    assert not better({"wer": 0.3, "loss": 0.1}, {"wer": 0.2, "loss": 0.3}, "wer", False)


def test_of_equal_evaluations_the_one_with_less_loss_is_better() -> None:
    best = {"accuracy": 1.0, "loss": 0.5}
    assert better({"accuracy": 1.0, "loss": 0.1}, best, "accuracy", True)
    assert not better({"accuracy": 1.0, "loss": 0.5}, best, "accuracy", True)
    assert not better({"wer": 1.0, "loss": 0.6}, {"wer": 1.0, "loss": 0.5}, "wer", False)


def test_an_evaluation_whose_metric_is_no_number_is_worse_than_others() -> None:
    """A correlation with a constant is none, and evaluations leave it out."""
    without, negative = {"loss": 0.1}, {"spearman": -0.5, "loss": 0.9}
    assert better(without, {}, "spearman", True)
    assert better(negative, without, "spearman", True)
    assert not better(without, negative, "spearman", True)
    assert better({"loss": 0.05}, without, "spearman", True)
