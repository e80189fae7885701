"""What a decoder reads first, and what it writes behind that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from training import languages
from training.sequences import IGNORED


def starts(model: Any, targets: torch.Tensor) -> torch.Tensor:
    """What the decoder reads to write these targets (rows, longest): as the model's class says, or
    as most do, a start and all but the last."""
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):
        own: torch.Tensor = model.prepare_decoder_input_ids_from_labels(labels=targets)
        return own
    padded = targets.masked_fill(targets == IGNORED, model.config.pad_token_id)
    first = targets.new_full((len(targets), 1), model.config.decoder_start_token_id)
    return torch.cat([first, padded[:, :-1]], dim=1)


def beginning(model: Any, tokenizer: Any) -> torch.Tensor:
    """What is read before a text in the language that the tokenizer is told: (1, tokens)."""
    empty = torch.tensor([tokenizer(text_target="")["input_ids"]])
    return starts(model, empty)[:, : 1 + languages.given(tokenizer)]


def write(
    model: Any, inputs: Mapping[str, torch.Tensor], begun: torch.Tensor, most: int
) -> torch.Tensor:
    """The tokens, at most so many, that the model writes greedily behind what each text has begun
    with (rows, tokens), and not these."""
    written: torch.Tensor = model.generate(
        **inputs,
        decoder_input_ids=begun,
        # Each row's own, or the model's would be put before it.
        decoder_start_token_id=begun[:, 0].tolist(),
        max_new_tokens=most,
        num_beams=1,
        do_sample=False,
    )
    # Not every tokenizer leaves its codes of languages out of a text.
    return written[:, begun.shape[1] :]
