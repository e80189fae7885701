"""The part of a spec that changes training rows anew in each epoch: which changes, how strong.

What is drawn for a row depends on (seed, epoch, the row's number) alone, and an evaluation sees
rows as they are.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from models.data_spec import Strict

Share = Annotated[float, Field(ge=0, lt=1)]
Alpha = Annotated[float, Field(ge=0, le=100)]
"""Of a Beta(alpha, alpha) distribution; 0 is none of it."""


class Augmentation(Strict):
    """Every setting's default changes nothing."""

    token_dropout: Share = 0.0
    """Of classification of texts: the share of tokens that are hidden, others in each epoch."""
    token_deletion: Share = 0.0
    """The share of tokens that are left out."""
    token_swap: Share = 0.0
    """The share of tokens that change places with the next one."""

    image_crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of images: a part of each is seen, anywhere in it, which is at least this share of its area.
    Its sides may change by a third against each other. Boxes and masks follow."""
    image_flip: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The chance that left and right are exchanged. Boxes and masks follow."""
    color_jitter: Share = 0.0
    """Brightness, contrast and saturation are multiplied by up to this much more or less than 1."""
    rand_augment: Annotated[int, Field(ge=0, le=14)] = 0
    """How many of RandAugment's 14 operations are applied (arXiv 1909.13719). Boxes and masks
    follow those that move pixels."""
    rand_augment_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """How strong they are."""
    mixup: Alpha = 0.0
    """Of classification of images: each is blended with another one, and so are their classes
    (arXiv 1710.09412)."""
    cutmix: Alpha = 0.0
    """Of classification of images: a part of each is replaced by that of another one (arXiv
    1905.04899). With `mixup` as well, each image gets one of the two."""

    audio_gain: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Of recordings: up to this many decibels louder or softer."""
    audio_shift: Annotated[float, Field(ge=0, le=60)] = 0.0
    """In speech recognition each begins up to this many seconds later and is whole; in
    classification earlier or later, and what goes over its edges is lost."""
    audio_snr: Annotated[float, Field(ge=-20, le=100)] | None = None
    """White noise is added, at a ratio drawn from this many decibels to 30 more."""
    time_masking: Share | None = None
    """SpecAugment (arXiv 1904.08779): the share of frames that is hidden in spans. None is what the
    model's config says."""
    frequency_masking: Share | None = None
    """The same along the features of a frame."""

    @model_validator(mode="after")
    def _operations_of_some_strength(self) -> Augmentation:
        if "rand_augment_magnitude" in self.model_fields_set and not self.rand_augment:
            default = type(self).model_fields["rand_augment_magnitude"].default
            if self.rand_augment_magnitude != default:
                raise ValueError(
                    "`rand_augment_magnitude` goes with `rand_augment`. Set that, or leave it out."
                )
        return self


IMAGES = ("image-classification", "object-detection", "image-segmentation")
SOUNDS = ("automatic-speech-recognition", "audio-classification")
OF_TASKS: dict[str, tuple[str, ...]] = {
    "token_dropout": ("text-classification",),
    "token_deletion": ("text-classification",),
    "token_swap": ("text-classification",),
    "image_crop": IMAGES,
    "image_flip": IMAGES,
    "color_jitter": IMAGES,
    "rand_augment": IMAGES,
    "mixup": ("image-classification",),
    "cutmix": ("image-classification",),
    "audio_gain": SOUNDS,
    "audio_shift": SOUNDS,
    "audio_snr": SOUNDS,
    "time_masking": SOUNDS,
    "frequency_masking": SOUNDS,
}
"""The tasks that a setting is for."""
WHY_NOT = {
    **{
        (name, "text-to-speech"): "what a model is to say has to stay as it is"
        for name, tasks in OF_TASKS.items()
        if tasks == SOUNDS
    },
    **{
        ("mixup", task): "rows of different lengths have no places that could be blended"
        for task in ("text-classification", "audio-classification")
    },
}
"""Said of a task that a setting seems as good for."""
