from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from tests.training.material import spec, texts, write_arrow
from training import optim
from training.accumulate import accumulate
from training.failures import NonFiniteLoss
from training.sequences import Sequences
from training.tasks.text_classification import TextClassification


@pytest.fixture
def loaded(
    tiny_model: Path, tmp_path: Path
) -> tuple[TextClassification, PreTrainedModel, Sequences]:
    task = TextClassification(spec(), print)
    model = task.load(tiny_model, exact=False)
    examples = task.read(
        write_arrow(tmp_path / "a.arrow", texts(13)), "training_file", lambda: None
    )
    return task, model, examples


def gradient(
    loaded: tuple[TextClassification, PreTrainedModel, Sequences], parts: list[list[int]]
) -> tuple[float, torch.Tensor]:
    """(mean loss, the mean's gradient) of these micro-batches, dropout off."""
    task, model, examples = loaded
    model.eval().zero_grad()
    totals = accumulate(task, model, examples, [np.array(part) for part in parts], step=1, epoch=0)
    optim.normalise_gradients(model, totals.count, max_norm=1e9)
    return totals.means["loss"], torch.cat(
        [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    )


def test_micro_batches_of_any_sizes_give_the_full_batch(
    loaded: tuple[TextClassification, PreTrainedModel, Sequences],
) -> None:
    full_loss, full = gradient(loaded, [list(range(13))])
    # 13 rows in fives: a mean of means would weigh the last three rows too much.
    for parts in ([list(range(5)), list(range(5, 10)), [10, 11, 12]], [[i] for i in range(13)]):
        loss, split = gradient(loaded, parts)
        assert loss == pytest.approx(full_loss, rel=1e-6)
        torch.testing.assert_close(split, full, rtol=1e-4, atol=1e-7)


def test_the_mean_is_that_of_the_models_own_loss(
    loaded: tuple[TextClassification, PreTrainedModel, Sequences],
) -> None:
    task, model, examples = loaded
    loss, _ = gradient(loaded, [[0, 1, 2], [3, 4, 5, 6]])
    batch = task.collate(examples, np.arange(7))
    with torch.no_grad():
        assert loss == pytest.approx(model(**batch.inputs, labels=batch.targets).loss.item())


def test_a_loss_that_is_not_finite_names_the_rows_of_its_micro_batch(
    loaded: tuple[TextClassification, PreTrainedModel, Sequences],
) -> None:
    _, model, examples = loaded
    # The longest row alone reaches the last position, whose embedding is broken.
    longest = int(examples.lengths.argmax())
    others = [i for i in range(13) if examples.lengths[i] < examples.lengths[longest]]
    with torch.no_grad():
        model.bert.embeddings.position_embeddings.weight[examples.lengths[longest] - 1] = torch.nan
    with pytest.raises(NonFiniteLoss) as caught:
        gradient(loaded, [others[:4], [longest, others[4]], others[5:]])
    assert caught.value.details == [
        {"step": 1, "row": longest + 1}, {"step": 1, "row": others[4] + 1}
    ]  # fmt: skip
