"""What tasks on images share: processor and head, rows read from the file, pixels as tensors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from transformers import PreTrainedConfig, PreTrainedModel

from training import images, pretrained, views
from training.images import Images
from training.tasks.base import Task
from training.views import View


class ImageTask(Task[Images]):
    """A task whose rows hold an image, which the model's processor makes a tensor of."""

    processor: Any

    @classmethod
    def model_types(cls) -> set[str]:
        """Those that need nothing beyond torch, and whose processor nothing beyond Pillow."""
        there = {name for name in super().model_types() if images.has_processor(name)}
        return there - {"timm_wrapper"}

    @abstractmethod
    def configure(self, config: PreTrainedConfig) -> bool:
        """Set what the task wants of the config; whether a head loaded with it may stay."""

    @abstractmethod
    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> list[Any]:
        """What each of these rows is to give. Raises BadData."""

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        scratch = self.from_scratch(exact=exact)
        config = pretrained.load_config(folder)
        self.processor = images.load_processor(folder, config, scratch=scratch)
        head_fits = self.configure(config)
        model, self.drawn = pretrained.load_model(
            self.model_class, folder, config, seed=self.spec.seed, exact=exact, scratch=scratch
        )
        if not head_fits and pretrained.renew_head(
            self.model_class, model, self.drawn, self.spec.seed
        ):
            self.log("The model's head was trained for other labels: a new one takes its place.")
        return model

    def read(self, path: Path, param: str, between_chunks: Callable[[], None]) -> Images:
        return images.read(
            path, param, between_chunks, lambda table, ids: self.encode(table, ids, param)
        )

    def views(self, examples: Images, rows: npt.NDArray[np.int64], epoch: int | None) -> list[View]:
        """What is seen of these images in an epoch; all of them as they are in an evaluation."""
        decoded = examples.decoded(rows)
        if epoch is None or not views.wanted(self.spec):
            return [View(image) for image in decoded]
        return [
            views.drawn(image, self.spec, [self.spec.seed, epoch, int(number)])
            for image, number in zip(decoded, examples.ids[rows], strict=True)
        ]

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
