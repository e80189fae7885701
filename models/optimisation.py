"""The part of a spec that a user asks for and a run takes as it is: how weights are optimised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.augmentation import Augmentation, Share

Optimizer = Literal["adamw", "adamw_8bit", "sgd", "rmsprop", "adafactor"]
Scheduler = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "exponential", "wsd", "constant"
]
Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]

OF_SCHEDULES: dict[str, tuple[Scheduler, ...]] = {
    "lr_cycles": ("cosine_with_restarts",),
    "lr_power": ("polynomial",),
    "lr_end_ratio": ("polynomial", "exponential", "wsd"),
    "lr_decay_ratio": ("wsd",),
}
"""Which schedules a setting belongs to."""


class Optimisation(Augmentation):
    """Hyperparameters of ours whose defaults do not hang on the data."""

    packing: Literal["auto"] | bool = "auto"
    """Whether the layers of a model for text leave padding out. "auto" does so where the model
    bears it; true refuses a model that does not."""
    micro_batch_tokens: Annotated[int, Field(ge=16, le=100_000_000)] | None = None
    """With packing, the most tokens that go through the model at once: less takes less memory and
    gives the same gradient."""
    activation_checkpointing: bool = False
    """Whether layers run a second time in the backward pass, to keep less in memory."""
    torch_compile: bool = False
    """Whether layers go through `torch.compile`. The worker needs a C++ compiler."""

    optimizer: Optimizer = "adamw"
    momentum: Share = 0.9
    """SGD's."""
    layer_lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each layer learns at this many times the rate of the one above it."""
    l1: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of the sum of the absolute weights in the loss. `weight_decay` is L2's counterpart."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keep a moving average of the weights, and evaluate and hand over that one."""

    lr_scheduler: Scheduler = "linear"
    lr_cycles: Annotated[int, Field(ge=1, le=1000)] = 1
    lr_power: Annotated[float, Field(gt=0, le=10)] = 2.0
    lr_end_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The rate at the end as a share of the highest; of "exponential" 0 means 0.01."""
    lr_decay_ratio: Annotated[float, Field(gt=0, le=1)] = 0.2
    """The share of all steps over which "wsd" goes down at the end."""

    dropout: Share | None = None
    """In place of every dropout that the model's config sets, attention's too."""
    label_smoothing: Share = 0.0
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    """Of tasks with one label a row: what a row of each label counts. "balanced" weighs labels so
    that all count alike."""
    focal_gamma: Annotated[float, Field(gt=0, le=10)] | None = None
    """Of tasks with one label a row: focal loss, (1 - p)^gamma times cross-entropy."""

    precision: Precision = "auto"

    @model_validator(mode="after")
    def _of_their_schedules(self) -> Optimisation:
        given = self.model_fields_set
        for name, schedules in OF_SCHEDULES.items():
            default = type(self).model_fields[name].default
            if name in given and getattr(self, name) != default and (
                self.lr_scheduler not in schedules
            ):  # fmt: skip
                raise ValueError(
                    f"`{name}` goes with `lr_scheduler` {' or '.join(map(repr, schedules))}. "
                    "Set that, or leave it out."
                )
        if self.focal_gamma is not None and self.label_smoothing:
            raise ValueError("Give `focal_gamma` or `label_smoothing`, not both.")
        return self
