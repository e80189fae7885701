"""Use downloaded weights with plain transformers: nothing of Luthier is imported.

    python examples/load_weights.py FOLDER "A sentence." "Another one."
    python examples/load_weights.py FOLDER --accuracy heldout.csv

Given a base model, whose classification head is not trained yet, `--accuracy` shows what guessing
gets.
"""

from __future__ import annotations

import argparse
import csv

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify with a folder of weights.")
    parser.add_argument("folder")
    parser.add_argument("sentences", nargs="*")
    parser.add_argument("--accuracy", metavar="CSV", help="a file with the columns text,label")
    options = parser.parse_intermixed_args()

    if options.accuracy:
        with open(options.accuracy, encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        labels = sorted({row["label"] for row in rows})
        found = classify(options.folder, [row["text"] for row in rows], labels)
        right = sum(row["label"] == label for row, (label, _) in zip(rows, found, strict=True))
        print(f"{right / len(rows):.3f}")
    if options.sentences:
        results = classify(options.folder, options.sentences)
        for sentence, (label, probability) in zip(options.sentences, results, strict=True):
            print(f"{label} ({probability:.2f})  {sentence}")


@torch.inference_mode()
def classify(
    folder: str, texts: list[str], labels: list[str] | None = None
) -> list[tuple[str, float]]:
    """The most probable label of each text, with its probability. `labels` names the classes of a
    head that is yet to be trained."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    if labels and set(model.config.label2id) != set(labels):
        ids = {label: i for i, label in enumerate(labels)}
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, label2id=ids, id2label=dict(enumerate(labels))
        )
    model.eval()
    results = []
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(
            texts[start : start + BATCH], padding=True, truncation=True, return_tensors="pt"
        )
        probabilities = model(**batch).logits.softmax(-1)
        for probability, label in zip(*probabilities.max(-1), strict=True):
            results.append((model.config.id2label[label.item()], probability.item()))
    return results


if __name__ == "__main__":
    main()
