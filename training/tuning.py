"""Ways of tuning: all weights, some of them, or low-rank adapters beside them.

A checkpoint is a plain Hugging Face folder whatever the way: under LoRA it holds the merged
weights, and in `adapter/` what is trained, from which a resume goes on. Merged weights could not be
taken apart again to the bit.
"""

from __future__ import annotations

import copy
import gc
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.errors import InvalidRequest
from models.spec import Freeze, Lora
from training import adapters, quantized
from training.layers import depths, stacks
from training.tasks.base import Task

ADAPTER = "adapter"
WEIGHTS = "adapter_model.safetensors"


def load(
    task: Task[Any], base: Path, resumed: Path | None, half: torch.dtype | None = None
) -> PreTrainedModel:
    """The model, from the base or a checkpoint, with what is not to be trained frozen.

    `half` is the dtype of 16 bits that products are made in, if any, which frozen matrices beside
    adapters are kept in. Raises ModelUnavailable, and InvalidRequest where the model has not what
    the spec names.
    """
    spec, task.base = task.spec, base
    model: PreTrainedModel
    if spec.lora is not None:
        model = adapted = _adapted(task, task.load(base, exact=False), spec.lora, half)
        if resumed is not None:
            set_peft_model_state_dict(adapted, load_file(resumed / ADAPTER / WEIGHTS))
        adapters.install(adapted)
        if half is not None:
            adapters.hold(adapted, half)
    else:
        if resumed is None or spec.freeze is not None:
            model = task.load(base, exact=False)
        # A checkpoint lacks nothing, so only the base tells what it lacked.
        drawn = task.drawn
        if resumed is not None:
            model = task.load(resumed, exact=True)
        if spec.freeze is not None:
            freeze(model, spec.freeze, drawn)
            task.drawn = drawn
    if spec.tuning != "scratch":
        hold_statistics(model)
    if spec.tuning != "full":
        trained, whole = (
            sum(p.numel() for p in model.parameters() if p.requires_grad or not only)
            for only in (True, False)
        )
        task.log(f"{trained:,} of {whole:,} weights are trained.")
    _copy_from_file(model)
    return model


def _copy_from_file(model: nn.Module) -> None:
    """Take what is still there out of its file, which is mapped into memory.

    There a tensor begins at any multiple of its elements' size, and matrix products may add in
    another order by how it lies: a run that goes on from a checkpoint, whose tensors lie otherwise
    than the base model's, would differ in its last bits from one that was never stopped.
    """
    for tensor in chain(model.parameters(), model.buffers()):
        tensor.data = tensor.data.clone()


def save(task: Task[Any], model: PreTrainedModel, folder: Path) -> None:
    """Write a plain Hugging Face folder, and under LoRA the adapter beside it."""
    if not isinstance(model, PeftModel):
        task.save(model, folder)
        return
    # A copy: weights that were merged and unmerged are not those from before to the bit.
    if task.spec.lora is not None and task.spec.lora.quantization is not None:
        merged = quantized.unpack(copy.deepcopy(model))
    else:
        merged = adapters.whole(model, task)
    task.save(merged.merge_and_unload(), folder)
    # Its layers hold themselves, so it would stay until Python looks for such, beside the next one.
    del merged
    gc.collect()
    adapter = folder / ADAPTER
    adapter.mkdir()
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, adapter / WEIGHTS)
    model.peft_config["default"].save_pretrained(str(adapter))


def hold_statistics(model: nn.Module) -> None:
    """Let batch norms go on with the means and variances that the base model came with.

    Those of a micro-batch would make a step's gradient depend on how it was split, and those of
    frozen layers must stay. A model from scratch has none yet and learns them.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(_evaluating)


def _evaluating(module: nn.Module, inputs: Any) -> None:
    module.eval()


def freeze(model: PreTrainedModel, chosen: Freeze, drawn: set[str]) -> None:
    """Freeze what is chosen, but for the parameters that the base model lacked (`drawn`)."""
    names = [name for name, _ in model.named_parameters()]
    frozen: set[str] = set()
    if chosen.head_only:
        head = _head(model)
        if not head:
            raise _impossible(
                "its head is its embeddings, so the head alone cannot be trained; "
                "choose `layers` or `gradual`"
            )
        frozen |= {name for name in names if name not in head}
    if chosen.layers is not None:
        frozen |= _bottom(model, chosen.layers)
    for pattern in chosen.patterns:
        like = {name for name in names if fnmatch(name, pattern)}
        if not like:
            raise _impossible(
                f"no parameter has a name like {pattern!r}; names are like {names[0]!r}, "
                f"{names[-1]!r}"
            )
        frozen |= like
    if set(names) <= frozen - drawn:
        raise _impossible("nothing would be left to train; name less in `freeze`")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen - drawn)


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Let layers run a second time in the backward pass. Raises InvalidRequest if they cannot."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if not inner.supports_gradient_checkpointing:
        raise InvalidRequest(
            "This model's layers cannot be run a second time.",
            hint="Leave `activation_checkpointing` out.",
            param="activation_checkpointing",
        )
    inner.activation_checkpointing_enable({"use_reentrant": False})


def _bottom(model: PreTrainedModel, layers: int) -> set[str]:
    """The names of the embeddings and of the lowest layers, of each stack that the model has."""
    found = stacks(model)
    deepest = len(found[0][1]) if found else 0
    if layers > deepest:
        raise _impossible(f"it has {deepest} layers, and {layers} were to be frozen")
    # A layer's own embedding is the layer's.
    return {name for name, depth in depths(model).items() if depth > deepest - layers}


def _head(model: PreTrainedModel) -> set[str]:
    """The parameters outside the model's body."""
    body = {id(parameter) for parameter in model.base_model.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) not in body}


def _adapted(
    task: Task[Any], model: PreTrainedModel, chosen: Lora, half: torch.dtype | None
) -> Any:
    """Adapters on all linear layers of the body. What the base model lacked, and a head that tells
    classes, is trained in full and travels with the adapter."""
    whole = {name.rpartition(".")[0] for name in task.drawn}
    if model.get_output_embeddings() is None:
        whole |= {name.rpartition(".")[0] for name in _head(model)}
    # PEFT trains modules whole. A vector that the body itself holds, such as what stands for hidden
    # frames, would bring all of the body along: it stays as it was drawn.
    whole = {name for name in whole if next(model.get_submodule(name).children(), None) is None}
    # A model without a head is its own body.
    body = "" if model.base_model is model else f"{model.base_model_prefix}."
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and name.startswith(body)
        and module is not model.get_output_embeddings()
        and name not in whole
    ]
    if not targets:
        raise _impossible("it has no linear layers to adapt")
    if chosen.quantization is not None:
        quantized.quantize(model, targets, half)
    torch.manual_seed(task.spec.seed)
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=chosen.rank,
            lora_alpha=chosen.alpha,  # type: ignore[arg-type]  # any number serves
            lora_dropout=chosen.dropout,
            use_rslora=chosen.rslora,
            use_dora=chosen.dora,
            target_modules=targets,
            modules_to_save=sorted(whole) or None,
        ),
    )
    # PEFT would name the folder on this machine. The adapter fits the weights that it started from.
    spec = task.spec
    adapted.peft_config["default"].base_model_name_or_path = spec.from_checkpoint or spec.model
    adapted.peft_config["default"].revision = None if spec.from_checkpoint else spec.model_revision
    return adapted


def _impossible(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"The model cannot be tuned in this way: {reason}.",
        param="tuning",
        code="unsupported_tuning",
    )
