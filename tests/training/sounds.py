"""Tones in place of speech, and audio models of some thousand weights."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import soundfile
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    PreTrainedTokenizerFast,
    SpeechT5Config,
    SpeechT5FeatureExtractor,
    SpeechT5ForTextToSpeech,
    SpeechT5Tokenizer,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from tests.training.material import saved

FILE_RATE, MODEL_RATE = 8000, 4000
TONES = {"a": 300.0, "b": 700.0, "c": 1300.0, " ": 0.0}
"""Hertz."""
LETTER = 0.1
"""Seconds."""
LABELS = ["a", "b"]


def wav(samples: np.ndarray[Any, Any], rate: int = FILE_RATE) -> bytes:
    packed = io.BytesIO()
    soundfile.write(packed, samples, rate, format="WAV", subtype="PCM_16")
    return packed.getvalue()


def tones(text: str, noise: np.random.Generator) -> np.ndarray[Any, Any]:
    time = np.arange(int(LETTER * FILE_RATE)) / FILE_RATE
    parts = [0.5 * np.sin(2 * np.pi * TONES[letter] * time) for letter in text]
    samples = np.concatenate(parts)
    return samples + noise.normal(0, 0.01, len(samples))


def row_of(number: int, text: str) -> dict[str, Any]:
    samples = tones(text, np.random.default_rng(number))
    return {"id": number, "audio": wav(samples), "file": f"{number}.wav",
            "sampling_rate": FILE_RATE, "seconds": len(samples) / FILE_RATE}  # fmt: skip


def spoken(rows: int, seed: int) -> list[dict[str, Any]]:
    """Words of tones; none stands twice in a row."""
    draw = random.Random(seed)
    made = []
    for row in range(1, rows + 1):
        text = draw.choice("abc")
        while len(text) < draw.randint(2, 5):
            text += draw.choice([letter for letter in "abc" if letter != text[-1]])
        made.append(row_of(row, text) | {"text": text})
    return made


def clips(rows: int, seed: int) -> list[dict[str, Any]]:
    """One tone for some time, named by it."""
    draw = random.Random(seed)
    made = []
    for row in range(1, rows + 1):
        label = draw.choice(LABELS)
        made.append(row_of(row, label * draw.randint(1, 4)) | {"label": label})
    return made


def wav2vec2_config() -> Wav2Vec2Config:
    return Wav2Vec2Config(
        vocab_size=6,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16, 16),
        conv_kernel=(10, 8),
        conv_stride=(5, 8),
        num_feat_extract_layers=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        mask_time_length=3,
        classifier_proj_size=16,
        layerdrop=0.0,
        pad_token_id=0,
    )


def listener(folder: Path) -> Path:
    """A Wav2Vec2 that has only listened: no head, no characters."""
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=MODEL_RATE, return_attention_mask=True)
    return saved(folder, Wav2Vec2Model, wav2vec2_config(), extractor)


def tiny_ctc(folder: Path) -> Path:
    """A Wav2Vec2 that writes, in capitals."""
    saved(listener(folder), Wav2Vec2ForCTC, wav2vec2_config())
    vocabulary = {name: place for place, name in enumerate(["[PAD]", "[UNK]", "|", "A", "B", "C"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    Wav2Vec2CTCTokenizer(
        str(folder / "vocab.json"), unk_token="[UNK]", pad_token="[PAD]", bos_token=None,
        eos_token=None,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def tiny_whisper(folder: Path) -> Path:
    """A Whisper that hears one second. Its texts begin with a start that is not its BOS."""
    special = ["<end>", "<pad>", "<start>", "<plain>"]
    vocabulary = {token: place for place, token in enumerate([*special, *"abc"])}
    backend = Tokenizer(models.WordLevel(vocabulary, "<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.post_processor = processors.TemplateProcessing(
        single="<start> <plain> $A <end>",
        special_tokens=[(token, vocabulary[token]) for token in special],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<end>", eos_token="<end>", pad_token="<pad>",
        additional_special_tokens=["<start>", "<plain>"],
    ).save_pretrained(folder)  # fmt: skip
    config = WhisperConfig(
        vocab_size=len(vocabulary),
        num_mel_bins=20,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=50,
        max_target_positions=16,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=2,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    extractor = WhisperFeatureExtractor(
        feature_size=20, sampling_rate=MODEL_RATE, hop_length=MODEL_RATE // 100, chunk_length=1,
        n_fft=160,
    )  # fmt: skip
    return saved(folder, WhisperForConditionalGeneration, config, extractor)


def tiny_ast(folder: Path) -> Path:
    """A spectrogram transformer for two hundred other classes."""
    config = ASTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        patch_size=8,
        time_stride=8,
        frequency_stride=8,
        max_length=48,
        num_mel_bins=16,
        num_labels=200,
    )
    extractor = ASTFeatureExtractor(sampling_rate=16000, num_mel_bins=16, max_length=48)
    return saved(folder, ASTForAudioClassification, config, extractor)


def voices(rows: int, seed: int) -> list[dict[str, Any]]:
    """What is spoken, by two speakers and by nobody in particular."""
    names = [None, "ann", "bob"]
    return [row | {"speaker": names[row["id"] % 3]} for row in spoken(rows, seed)]


def tiny_speecht5(folder: Path) -> Path:
    """A SpeechT5 that reads letters, without what it drops out even when it does not learn."""
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c", "cab", "abc"] * 20), model_prefix=str(folder / "letters"),
        model_type="char", vocab_size=9, bos_id=0, pad_id=1, eos_id=2, unk_id=3,
        hard_vocab_limit=False, minloglevel=3,
    )  # fmt: skip
    SpeechT5Tokenizer(str(folder / "letters.model")).save_pretrained(folder)
    config = SpeechT5Config(
        vocab_size=20,
        hidden_size=32,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
        num_mel_bins=20,
        speech_decoder_prenet_units=16,
        speech_decoder_prenet_dropout=0.0,
        speech_decoder_postnet_units=16,
        speech_decoder_postnet_layers=2,
        speaker_embedding_dim=8,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
    )
    extractor = SpeechT5FeatureExtractor(
        sampling_rate=MODEL_RATE, num_mel_bins=20, fmin=80, fmax=1900
    )
    return saved(folder, SpeechT5ForTextToSpeech, config, extractor)
