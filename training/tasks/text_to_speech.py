"""Speech synthesis: a text is spoken in the voice of the recordings (SpeechT5, Ao et al. 2021).

The model tells the spectrogram frame by frame; a vocoder such as `microsoft/speecht5_hifigan` makes
sound of it. The loss is that of transformers' class, of each row by itself, weighted by its frames:
the distance of the spectrogram before and after the last convolutions, whether the speech ends, and
how far attention strays from the diagonal.

A speaker is a vector. Each name in the data has one of its own, drawn from the seed and the name,
and `speakers.safetensors` in the output holds them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from torchmetrics import MeanMetric, MetricCollection
from transformers import (
    AutoModelForTextToSpectrogram,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.speecht5.modeling_speecht5 import (
    SpeechT5GuidedMultiheadAttentionLoss,
    shift_spectrograms_right,
)

from training import pretrained
from training.audio import Recordings
from training.images import as_png
from training.sequences import bad_rows
from training.tasks.audio import AudioTask
from training.tasks.base import Batch, Loss

PADDING = -100.0
SPEAKERS = "speakers.safetensors"
UNNAMED = "speaker"
STOP_WEIGHT = 5.0
"""Of the one frame where speech ends against those where it goes on, as in transformers."""


class TextToSpeech(AudioTask):
    model_class = AutoModelForTextToSpectrogram
    metric_names = ("spectrogram_l1",)

    tokenizer: PreTrainedTokenizerBase
    speakers: dict[str, torch.Tensor]

    @classmethod
    def model_types(cls) -> set[str]:
        return super().model_types() & {"speecht5"}

    def load(self, folder: Path, *, exact: bool) -> PreTrainedModel:
        self.load_parts(folder)
        self.tokenizer = pretrained.load_tokenizer(folder)
        model, self.drawn = pretrained.load_model(
            self.model_class, folder, self.config, seed=self.spec.seed, exact=exact,
            scratch=self.from_scratch(exact=exact),
        )  # fmt: skip
        self.settle(model)
        known = folder / SPEAKERS
        self.speakers = load_file(known) if known.is_file() else {}
        return model

    def read(self, path: Path, param: str, between_chunks: Callable[[], None]) -> Recordings:
        examples = super().read(path, param, between_chunks)
        for _, name in examples.targets:
            if name not in self.speakers:
                self.speakers[name] = self._speaker(name)
        return examples

    def _speaker(self, name: str) -> torch.Tensor:
        digest = hashlib.blake2b(f"{self.spec.seed} {name}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        vector = torch.randn(self.config.speaker_embedding_dim, generator=generator)
        return functional.normalize(vector, dim=0)

    def encode(self, table: pa.Table, ids: npt.NDArray[np.int64], param: str) -> list[Any]:
        """(tokens, speaker) of each row."""
        tokens: list[list[int]] = self.tokenizer(
            table["text"].to_pylist(), return_attention_mask=False
        )["input_ids"]
        most = self.config.max_text_positions
        if (long := np.array([len(row) > most for row in tokens])).any():
            raise bad_rows(ids[long], f"have more than the {most} tokens it reads", param)
        second = 1000 / self.extractor.hop_length
        seconds = np.array(table["seconds"], dtype=np.float64)
        longest = self.config.max_speech_positions * self.config.reduction_factor / second
        if (long := seconds > longest).any():
            raise bad_rows(ids[long], f"are longer than the {longest:.0f} seconds it speaks", param)
        if (short := seconds * second < 2 * self.config.reduction_factor).any():
            raise bad_rows(ids[short], "are too short to be spoken", param)
        names = [name or UNNAMED for name in table["speaker"].to_pylist()]
        return list(zip(tokens, names, strict=True))

    def collate(
        self, examples: Recordings, rows: npt.NDArray[np.int64], epoch: int | None = None
    ) -> Batch:
        """Tokens (rows, longest text), and spectra (rows, frames, mels) as what is told and, moved
        by one frame, as what the decoder reads."""
        wanted = [examples.targets[row] for row in rows]
        texts = self.tokenizer.pad(
            {"input_ids": [tokens for tokens, _ in wanted]}, return_tensors="pt"
        )
        rate, step = self.extractor.sampling_rate, self.config.reduction_factor
        spectra = [
            torch.as_tensor(
                self.extractor(audio_target=samples, sampling_rate=rate)["input_values"][0]
            )
            for samples in examples.decoded(rows)
        ]
        # The decoder tells `reduction_factor` frames at a time.
        spectra = [spectrum[: len(spectrum) // step * step].float() for spectrum in spectra]
        targets = torch.nn.utils.rnn.pad_sequence(spectra, batch_first=True, padding_value=PADDING)
        there = (targets[..., 0] != PADDING).long()
        moved, mask = shift_spectrograms_right(targets, step, there)
        inputs = {
            "input_ids": texts["input_ids"],
            "attention_mask": texts["attention_mask"],
            "decoder_input_values": moved,
            "decoder_attention_mask": mask,
            "speaker_embeddings": torch.stack([self.speakers[name] for _, name in wanted]),
        }
        return Batch(inputs, targets, tokens=int(texts["attention_mask"].sum()))

    def loss(self, model: PreTrainedModel, batch: Batch) -> Loss:
        """Summed over frames. `outputs` are the spectrogram's summed distance and its weight."""
        if model.training:
            return self._loss(model, batch)
        # The decoder's first layers drop out when it is only listened to as well.
        with torch.random.fork_rng():
            torch.manual_seed(self.spec.seed)
            return self._loss(model, batch)

    def _loss(self, model: Any, batch: Batch) -> Loss:
        guided = self.config.use_guided_attention_loss
        told = model.speecht5(**_named(batch), output_attentions=guided, use_cache=False)
        frames = (batch.targets[..., 0] != PADDING).sum(dim=1)
        summed, l1 = [], []
        for row, length in enumerate(frames.tolist()):
            # Each by itself: the last convolutions would see into the padding.
            states = told.last_hidden_state[row : row + 1, : length // self.config.reduction_factor]
            before, after, stops = (
                found[0].float() for found in model.speech_decoder_postnet(states)
            )
            true = batch.targets[row, :length]
            ends = torch.zeros_like(stops)
            ends[-1] = 1.0
            weight = stops.new_tensor(STOP_WEIGHT)
            stop = functional.binary_cross_entropy_with_logits(
                stops, ends, reduction="sum", pos_weight=weight
            )
            l1.append((after - true).abs().mean(dim=1).sum())
            summed.append(l1[-1] + (before - true).abs().mean(dim=1).sum() + stop)
        total, distance = torch.stack(summed).sum(), torch.stack(l1).sum().detach()
        if guided:
            total = total + (self._strayed(told.cross_attentions, batch) * frames).sum()
        count = int(frames.sum())
        return Loss(total, count, (distance, count), {"spectrogram_l1": distance})

    def _strayed(self, attentions: Any, batch: Batch) -> torch.Tensor:
        """Each row's attention away from the diagonal (Tachibana et al. 2017, section 4.1)."""
        heads = self.config.guided_attention_loss_num_heads
        attention = torch.cat([layer[:, :heads].float() for layer in attentions], dim=1)
        config: Any = self.config
        criterion = SpeechT5GuidedMultiheadAttentionLoss(config)
        masks = batch.inputs["attention_mask"] == 1, batch.inputs["decoder_attention_mask"] == 1
        return torch.stack(
            [
                criterion(attention[row : row + 1], *(mask[row : row + 1] for mask in masks))
                for row in range(len(attention))
            ]
        )

    def metrics(self, device: torch.device) -> MetricCollection:
        return MetricCollection({"spectrogram_l1": MeanMetric()}).to(device)

    def update(self, metrics: MetricCollection, loss: Loss, batch: Batch) -> None:
        l1, frames = loss.outputs
        metrics["spectrogram_l1"].update(l1 / frames, weight=frames)

    def tell(
        self, model: Any, examples: Recordings, rows: npt.NDArray[np.int64]
    ) -> list[dict[str, str]]:
        """Spectrograms as grey PNGs, low tones at the bottom: the recording's, and the model's,
        which is told frame by frame from those of the recording before."""
        batch = self.collate(examples, rows).to(model.device)
        with torch.random.fork_rng():
            torch.manual_seed(self.spec.seed)
            states = model.speecht5(**_named(batch), use_cache=False).last_hidden_state
        told = []
        for row, padded in enumerate(batch.targets):
            true = padded[padded[:, 0] != PADDING]
            own = states[row : row + 1, : len(true) // self.config.reduction_factor]
            _, after, _ = model.speech_decoder_postnet(own)
            low, high = true.min(), true.max()
            expected, predicted = (
                as_png((255 * (mels.float() - low) / (high - low)).clamp(0, 255).flip(1).T
                       .to(torch.uint8).cpu().numpy())
                for mels in (true, after[0])
            )  # fmt: skip
            told.append({"expected": expected, "predicted": predicted})
        return told

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        super().save(model, folder)
        pretrained.save_tokenizer(self.tokenizer, folder)
        if self.speakers:
            save_file(self.speakers, folder / SPEAKERS)


def _named(batch: Batch) -> dict[str, torch.Tensor]:
    """The inputs as the model's body names them."""
    names = {"input_ids": "input_values"}
    return {names.get(name, name): tensor for name, tensor in batch.inputs.items()}


TASK = TextToSpeech
