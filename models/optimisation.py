"""The part of a spec that a user asks for and a run takes as it is: how weights are optimised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.data_spec import Strict


class Optimisation(Strict):
    """Hyperparameters of ours whose defaults do not hang on the data."""

    packing: Literal["auto"] | bool = "auto"
    """Whether the layers of a model for text leave padding out. "auto" does so where the model
    bears it; true refuses a model that does not."""
    micro_batch_tokens: Annotated[int, Field(ge=16, le=100_000_000)] | None = None
    """With packing, the most tokens that go through the model at once: less takes less memory and
    gives the same gradient."""
