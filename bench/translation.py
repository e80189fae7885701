"""Interface texts, from one script into another: a small Marian from scratch, letter by letter.

Serbian is written in Cyrillic and in Latin letters, and Django's catalogues have both. Printed are
BLEU and chrF on the texts held out, of the model as it was drawn and after training.

    python -m bench.translation [EPOCHS] [SOURCE TARGET]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, MarianConfig, PreTrainedTokenizerFast

from bench import engine
from bench.catalogues import Pair, catalogues, pairs

LONGEST = 80
PAD, UNKNOWN, END = "<pad>", "<unk>", "</s>"
SHOWN = 5


def write_model(folder: Path, training: list[Pair]) -> Path:
    """A config without weights, and a tokenizer of the letters that occur."""
    letters = sorted({letter for pair in training for text in pair for letter in text})
    vocabulary = {token: number for number, token in enumerate([PAD, UNKNOWN, END, *letters])}
    backend = Tokenizer(models.WordLevel(vocabulary, UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, vocabulary[END])]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, unk_token=UNKNOWN, eos_token=END
    ).save_pretrained(folder)
    MarianConfig(
        vocab_size=len(vocabulary), decoder_vocab_size=len(vocabulary), d_model=128,
        encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=256, decoder_ffn_dim=256, max_position_embeddings=LONGEST * 2,
        pad_token_id=0, eos_token_id=vocabulary[END], decoder_start_token_id=0,
        forced_eos_token_id=None, scale_embedding=True,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def write(path: Path, rows: list[Pair]) -> Path:
    lines = (json.dumps({"source": source, "target": target}) for source, target in rows)
    path.write_text("\n".join(lines))
    return path


def main() -> None:
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    source, target = sys.argv[2:4] if len(sys.argv) > 3 else ("sr", "sr_Latn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        training, held_out = pairs(catalogues(folder), source, target, LONGEST)
        files = write(folder / "train.jsonl", training), write(folder / "valid.jsonl", held_out)
        model = write_model(folder / "model", training)
        # A step of no size leaves the weights as they were drawn.
        untrained = {"max_steps": 1, "learning_rate": 1e-30, "weight_decay": 0.0}
        trained = {"n_epochs": epochs, "batch_size": 32, "learning_rate": 1e-3,
                   "lr_scheduler": "cosine", "warmup_ratio": 0.05, "eval_every": 200}  # fmt: skip
        scores, seconds, outcome = [], 0.0, None
        for name_, hyperparameters in (("before", untrained), ("after", trained)):
            began = time.perf_counter()
            outcome = engine.run(
                folder / name_, model, "translation", *files,
                tuning="scratch", seed=0, hyperparameters=hyperparameters,
            )  # fmt: skip
            seconds = time.perf_counter() - began
            found = outcome.done["metrics"]
            scores.append(f"BLEU {found['valid_bleu']:.1f}, chrF {found['valid_chrf']:.3f}")
            for step, values in outcome.evaluations():
                print(f"{name_}: step {step:5}  loss {values['loss']:.3f}  BLEU "
                      f"{values['bleu']:.1f}  chrF {values['chrf']:.3f}", flush=True)  # fmt: skip
        assert outcome is not None
        tokenizer = AutoTokenizer.from_pretrained(outcome.output)
        plain = AutoModelForSeq2SeqLM.from_pretrained(outcome.output)
        for asked, wanted in held_out[:SHOWN]:
            ids = plain.generate(**tokenizer(asked, return_tensors="pt"), max_new_tokens=LONGEST)
            said = tokenizer.decode(ids[0], skip_special_tokens=True)
            print(f"  {asked!r} -> {said!r} (wanted: {wanted!r})")
    print(
        f"{source} to {target}: {len(training)} texts, {len(held_out)} held out, {epochs} epochs, "
        f"{seconds:.0f} s: before {scores[0]}; after {scores[1]}"
    )


if __name__ == "__main__":
    main()
