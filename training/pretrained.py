"""Loading and saving Hugging Face folders without running anything that stands in them.

A model folder comes from outside. Only safetensors are read, no code of its own is ever run, and
its config loses the entries that would fetch code later (auto_map, kernels).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    __version__,
)

from training.failures import ModelUnavailable, is_out_of_memory

_CODE_ENTRIES = ("auto_map", "custom_pipelines")
_CODE_INFIXES = ("attn_implementation", "experts_implementation", "kernel_config", "use_kernels")
_TOKENIZER_TRACES = ("auto_map", "is_local", "local_files_only")
MOST_LACKING = 0.5
"""Of a body's weights. Poolers and the like are far less."""
_LOAD_ERRORS = (
    OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError, SafetensorError,
)  # fmt: skip


def load_config(folder: Path) -> PreTrainedConfig:
    """The config of a folder, of a model type that the installed transformers knows."""
    try:
        entries, _ = PreTrainedConfig.get_config_dict(folder, local_files_only=True)
        if "model_type" not in entries:
            raise _unavailable("it has no config.json that names its type")
        kind = str(entries["model_type"])
        if kind not in CONFIG_MAPPING:
            raise _unavailable(f"its type {kind!r} is not known to transformers {__version__}")
        if "quantization_config" in entries:
            raise _unavailable("its weights are quantised: name the model they were made of")
        config: PreTrainedConfig = CONFIG_MAPPING[kind].from_dict(_without_code(entries))
    except _LOAD_ERRORS as error:
        raise _unavailable(_reason(error, folder)) from error
    return config


def load_tokenizer(folder: Path, **options: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder. One without a padding token pads with its end of text."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True, **options
        )
    except _LOAD_ERRORS as error:
        raise _unavailable(_reason(error, folder)) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise _unavailable("its tokenizer has no token to pad with")
    return tokenizer


def load_image_processor(folder: Path) -> Any:
    """The image processor of a folder, in its form that needs nothing but Pillow."""
    try:
        processor = AutoImageProcessor.from_pretrained(
            folder, backend="pil", trust_remote_code=False, local_files_only=True
        )
    except _LOAD_ERRORS as error:
        raise _unavailable(_reason(error, folder)) from error
    if hasattr(processor, "auto_map"):
        del processor.auto_map
    return processor


def load_feature_extractor(folder: Path) -> Any:
    """What makes a model's inputs of sound."""
    try:
        extractor = AutoFeatureExtractor.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except _LOAD_ERRORS as error:
        raise _unavailable(_reason(error, folder)) from error
    if hasattr(extractor, "auto_map"):
        del extractor.auto_map
    return extractor


def require_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ModelUnavailable unless the tokenizer tells where in the text its tokens stand."""
    if not tokenizer.is_fast:
        raise _unavailable("its tokenizer has no fast form, which tells where tokens stand")


def require_room(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ModelUnavailable unless a model of this config has a place for every token."""
    places = config.get_text_config().vocab_size
    if len(tokenizer) > places:
        raise _unavailable(
            f"its tokenizer has {len(tokenizer)} tokens, and its config's vocab_size is {places}"
        )


def spaced_words(tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer for texts that come as words: one of bytes must put a space before each."""
    if getattr(tokenizer, "add_prefix_space", None) is not False:
        return tokenizer
    return load_tokenizer(folder, add_prefix_space=True)


def load_model(
    auto_class: Any,
    folder: Path,
    config: PreTrainedConfig,
    *,
    seed: int,
    exact: bool,
    scratch: bool = False,
) -> tuple[PreTrainedModel, set[str]]:
    """The model in fp32, whatever its file's dtype, and the names of the parameters that the file
    lacks or has in another shape: those are drawn from the seed.

    fp32 because a step of the optimizer is mostly smaller than bf16 can add to a weight. `exact`
    refuses a file that lacks anything; `scratch` draws all and reads none. Raises
    ModelUnavailable, also for a file that lacks most of the body: its weights have other names or
    shapes than the config tells, and training would begin from chance without a word.
    """
    if type(config) not in auto_class._model_mapping:
        raise _unavailable(f"a model of type {config.model_type!r} cannot be trained for this task")
    if scratch:
        return _drawn_model(auto_class, folder, config, seed)
    if not any(folder.glob("model*.safetensors")):
        raise _unavailable("it has no safetensors weights, and no other format is read")
    torch.manual_seed(seed)
    try:
        model, report = auto_class.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=not exact,
            output_loading_info=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except _LOAD_ERRORS as error:
        if is_out_of_memory(error):
            raise
        raise _unavailable(_reason(error, folder)) from error
    drawn = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    if exact and drawn:
        raise _unavailable(f"the checkpoint lacks {', '.join(sorted(drawn))}")
    if (share := _lacking(model, drawn)) > MOST_LACKING:
        raise _unavailable(f"its file lacks {share:.0%} of the weights that its config tells of")
    return model, drawn


def _lacking(model: PreTrainedModel, drawn: set[str]) -> float:
    """The share of the body's weights that were drawn."""
    own = {id(parameter) for name, parameter in model.named_parameters() if name in drawn}
    body = list(model.base_model.parameters())
    whole = sum(parameter.numel() for parameter in body)
    return sum(p.numel() for p in body if id(p) in own) / max(1, whole)


def _drawn_model(
    auto_class: Any, folder: Path, config: PreTrainedConfig, seed: int
) -> tuple[PreTrainedModel, set[str]]:
    torch.manual_seed(seed)
    try:
        model = auto_class.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except _LOAD_ERRORS as error:
        if is_out_of_memory(error):
            raise
        raise _unavailable(_reason(error, folder)) from error
    return model, {name for name, _ in model.named_parameters()}


def renew_head(auto_class: Any, model: PreTrainedModel, drawn: set[str], seed: int) -> bool:
    """Draw anew from the seed what was loaded and tells classes; whether that was any.

    That is what would have another shape with one class more. What stands beside it in a head, such
    as DETR's for boxes, means the same whatever the classes are.
    """
    config = copy.deepcopy(model.config)
    config.num_labels = (config.num_labels or 0) + 1
    with torch.device("meta"):
        other = auto_class.from_config(config)
    shapes = {name: parameter.shape for name, parameter in other.named_parameters()}
    head = {
        name: parameter
        for name, parameter in model.named_parameters()
        if name not in drawn and parameter.shape != shapes[name]
    }
    if not head:
        return False
    torch.manual_seed(seed)
    fresh = auto_class.from_config(model.config).state_dict()
    with torch.no_grad():
        for name, parameter in head.items():
            parameter.copy_(fresh[name])
    drawn.update(head)
    return True


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer as it came: without the truncation that encoding left switched on."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    for trace in _TOKENIZER_TRACES:
        tokenizer.init_kwargs.pop(trace, None)
    tokenizer.save_pretrained(folder)


def _without_code(value: Any) -> Any:
    """A config's entries, nested ones too, less those that name code to fetch or run."""
    if isinstance(value, dict):
        return {
            name: _without_code(entry)
            for name, entry in value.items()
            if name not in _CODE_ENTRIES and not any(infix in name for infix in _CODE_INFIXES)
        }
    return [_without_code(entry) for entry in value] if isinstance(value, list) else value


def _reason(error: Exception, folder: Path) -> str:
    """What a library says, without the place on this machine."""
    return str(error).replace(str(folder), "the model's folder").strip() or type(error).__name__


def _unavailable(reason: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"The model cannot be trained: {reason}.",
        param="model",
        hint="Choose a model with safetensors weights whose type transformers knows.",
    )
