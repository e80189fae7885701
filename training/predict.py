"""`python -m training.predict PARENT`: one input through one fine-tuned model, in a limited child.

A request comes as JSON on standard input, and one answer goes to standard output: `{"output": …}`,
or `{"error": {code, message}}`. What libraries print goes to standard error. The folder holds
safetensors and configs alone, no code of its own is run, and nothing is fetched.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ingest.limits import Limits
from ingest.media import audio, images
from ingest.problems import BadValue

PR_SET_PDEATHSIG = 1
SHOWN = 500
"""Characters of a library's own error."""
WRITTEN_BYTES = 16 * 1024**2
"""The largest file that the child may write."""
LONGEST_ANSWER = 30
"""Tokens of a span that answers a question."""
LANGUAGES = ("source_language", "target_language")
Request = dict[str, Any]


class Unfit(Exception):
    """The input is not one for this model's task."""


def main() -> None:
    # The child must not outlive its parent, which alone would take its answer.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent ended before this")
    answer_to = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    request = json.loads(sys.stdin.read())
    for which, most in (
        (resource.RLIMIT_AS, request["memory_bytes"]),
        (resource.RLIMIT_FSIZE, WRITTEN_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(which, (most, most))
    json.dump(_answer(request), answer_to, allow_nan=False)
    answer_to.flush()


def _answer(request: Request) -> dict[str, Any]:
    try:
        for name, value in request["input"].items():
            if value is not None and request["task"] not in BESIDE.get(name, TASKS):
                raise Unfit(f"A model for {request['task']} takes no `input.{name}`: leave it out.")
        return {"output": {"result": TASKS[request["task"]](request)}}
    except Unfit as error:
        return _error("invalid_input", str(error))
    except MemoryError:
        return _error("resource_limit", "The model needs more memory than predictions may take.")
    except Exception as error:  # noqa: BLE001 - whatever a library raises is told to who asked
        if "can't allocate memory" in str(error):
            return _error(
                "resource_limit", "The model needs more memory than predictions may take."
            )
        return _error("prediction_failed", f"{type(error).__name__}: {error}"[:SHOWN])


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _pipeline(request: Request, task: str, **options: Any) -> Any:
    from transformers import pipeline

    return pipeline(
        task,  # type: ignore[call-overload]  # the task is one of many literals
        model=request["folder"],
        trust_remote_code=False,
        device="cpu",
        model_kwargs={"use_safetensors": True},
        **options,
    )


def _text(request: Request) -> str:
    if "text" not in request["input"]:
        raise Unfit(f"A model for {request['task']} takes a text: `input` is a string.")
    return str(request["input"]["text"])


def _pair(request: Request, first: str, second: str) -> tuple[str, str]:
    text, pair = _text(request), request["input"].get("text_pair")
    if pair is None:
        raise Unfit(f"It takes two texts: `input.text` is {first}, `input.text_pair` {second}.")
    return text, str(pair)


def _file(request: Request, inspect: Callable[[bytes, Limits], object]) -> bytes:
    """The file's bytes, once they have passed the check of those that are trained on."""
    if "path" not in request["input"]:
        raise Unfit(
            f"A model for {request['task']} takes a file: upload it, and send its id as "
            "`input.file`."
        )
    packed = Path(request["input"]["path"]).read_bytes()
    try:
        inspect(packed, Limits())
    except BadValue as error:
        raise Unfit(f"This file cannot be tried: {error}. {error.hint}".strip()) from None
    return packed


def _classified_text(request: Request) -> Any:
    given = {"text": _text(request)}
    if request["input"].get("text_pair") is not None:
        given["text_pair"] = request["input"]["text_pair"]
    return _pipeline(request, "text-classification", top_k=None)(given, truncation=True)


def _entities(request: Request) -> Any:
    # Only the first token of a word was taught its tag.
    found = _pipeline(request, "token-classification", aggregation_strategy="first")
    return [{**entity, "score": float(entity["score"])} for entity in found(_text(request))]


def _masked(request: Request) -> Any:
    pipe = _pipeline(request, "fill-mask")
    text = _text(request)
    if pipe.tokenizer.mask_token not in text:
        raise Unfit(f"Write {pipe.tokenizer.mask_token} where a word is to be found.")
    return pipe(text)


def _written(request: Request) -> Any:
    pipe = _pipeline(request, "text-generation")
    messages = request["input"].get("messages")
    if messages is not None and pipe.tokenizer.chat_template is None:
        raise Unfit("This model has no chat template. Send a text in place of `messages`.")
    limits = {"max_new_tokens": request["max_tokens"], "max_length": None, "do_sample": False}
    (found,) = pipe(messages or _text(request), return_full_text=False, **limits)
    return {"text": found["generated_text"]}


def _rewritten(request: Request) -> Any:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from training import decoding

    tokenizer = AutoTokenizer.from_pretrained(request["folder"])
    model = AutoModelForSeq2SeqLM.from_pretrained(request["folder"], use_safetensors=True)
    most = request["max_tokens"]
    begun = _begun(request["input"], tokenizer, model)
    encoded = tokenizer(_text(request), return_tensors="pt", truncation=True)
    if begun is None:
        written = model.generate(**encoded, max_new_tokens=most, do_sample=False)
    else:
        written = decoding.write(model, encoded, begun, most)
    return {"text": tokenizer.decode(written[0], skip_special_tokens=True)}


def _begun(given: Mapping[str, Any], tokenizer: Any, model: Any) -> Any:
    """Tell the tokenizer the languages of the input; what the text begins with to be in the one
    that is asked for, or None where the model begins with its own."""
    from training import decoding, languages

    known = languages.codes(tokenizer)
    source, target = (_language(given, name, known) for name in LANGUAGES)
    if source is not None:
        tokenizer.src_lang = source
    if target is not None:
        tokenizer.tgt_lang = target
        return decoding.beginning(model, tokenizer)
    if known and not languages.own(tokenizer, model.generation_config):
        raise Unfit(
            "This model writes in several languages: send the one that you want as "
            f"`input.target_language`. {languages.listed(known)}"
        )
    return None


def _language(given: Mapping[str, Any], name: str, known: Sequence[str]) -> str | None:
    from training import languages

    if (said := given.get(name)) is None:
        return None
    if not known:
        raise Unfit(f"This model is told no languages: leave `input.{name}` out.")
    if (code := languages.code(said, known)) is None:
        raise Unfit(f"The model has no language {said!r}. {languages.listed(known)}")
    return code


def _answered(request: Request) -> Any:
    """The likeliest span of the context, of at most LONGEST_ANSWER tokens."""
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    question, context = _pair(request, "the question", "what it is asked about")
    tokenizer = AutoTokenizer.from_pretrained(request["folder"])
    model = AutoModelForQuestionAnswering.from_pretrained(request["folder"], use_safetensors=True)
    encoded = tokenizer(
        question, context, return_tensors="pt", truncation="only_second",
        return_offsets_mapping=True,
    )  # fmt: skip
    offsets = encoded.pop("offset_mapping")[0]
    inside = torch.tensor([part == 1 for part in encoded.sequence_ids(0)])
    with torch.no_grad():
        told = model(**encoded)
    start = told.start_logits[0].masked_fill(~inside, -torch.inf).log_softmax(0)
    end = told.end_logits[0].masked_fill(~inside, -torch.inf).log_softmax(0)
    allowed = torch.ones(len(start), len(end), dtype=torch.bool).triu().tril(LONGEST_ANSWER - 1)
    spans = (start[:, None] + end[None, :]).masked_fill(~allowed, -torch.inf)
    first, last = divmod(int(spans.argmax()), len(end))
    begin, stop = int(offsets[first][0]), int(offsets[last][1])
    score = float(spans.max().exp())
    return {"answer": context[begin:stop], "start": begin, "end": stop, "score": score}


def _embedded(request: Request) -> Any:
    """The vector of length 1 that the model was trained to make; of two texts their cosine too."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from training import embedding

    texts = [_text(request), *filter(None, [request["input"].get("text_pair")])]
    tokenizer = AutoTokenizer.from_pretrained(request["folder"])
    model = AutoModel.from_pretrained(request["folder"], use_safetensors=True)
    folder = Path(request["folder"])
    encoded = tokenizer(
        texts, return_tensors="pt", padding=True, truncation=True,
        max_length=embedding.longest_of(folder),
    )  # fmt: skip
    with torch.no_grad():
        states = model(**encoded).last_hidden_state
    pooled = embedding.pool(
        states, encoded["attention_mask"], embedding.pooling_of(folder) or "mean"
    )
    vectors = torch.nn.functional.normalize(pooled, dim=1)
    told: dict[str, Any] = {"embedding": vectors[0].tolist()}
    return told | ({"similarity": float(vectors[0] @ vectors[1])} if len(texts) == 2 else {})


def _image(request: Request) -> Any:
    from training.views import decode

    return decode(_file(request, images.inspect))


def _segments(request: Request) -> Any:
    """Of each class its share of the picture."""
    import numpy as np

    found = _pipeline(request, "image-segmentation")(_image(request))
    return [
        {"label": part["label"], "share": float((np.asarray(part["mask"]) > 0).mean())}
        for part in found
    ]


def _sound(request: Request, pipe: Any) -> dict[str, Any]:
    from training.audio import decode

    rate = pipe.feature_extractor.sampling_rate
    return {"raw": decode(_file(request, audio.inspect), rate), "sampling_rate": rate}


def _heard(request: Request) -> Any:
    pipe = _pipeline(request, "automatic-speech-recognition")
    return pipe(_sound(request, pipe))


def _classified_sound(request: Request) -> Any:
    pipe = _pipeline(request, "audio-classification")
    return pipe(_sound(request, pipe))


def _spoken(request: Request) -> Any:
    raise Unfit("Models that speak cannot be tried here. Download it, and load it.")


TASKS: dict[str, Callable[[Request], Any]] = {
    "text-classification": _classified_text,
    "token-classification": _entities,
    "fill-mask": _masked,
    "text-generation": _written,
    "preference": _written,
    "translation": _rewritten,
    "summarization": _rewritten,
    "question-answering": _answered,
    "feature-extraction": _embedded,
    "image-classification": lambda asked: _pipeline(asked, "image-classification")(_image(asked)),
    "object-detection": lambda asked: _pipeline(asked, "object-detection")(_image(asked)),
    "image-segmentation": _segments,
    "automatic-speech-recognition": _heard,
    "audio-classification": _classified_sound,
    "text-to-speech": _spoken,
}
BESIDE = {
    "text_pair": ("text-classification", "question-answering", "feature-extraction"),
    **dict.fromkeys(LANGUAGES, ("translation",)),
}
"""What may be told beside a text, and of which tasks."""


if __name__ == "__main__":
    main()
