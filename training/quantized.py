"""QLoRA (arXiv 2305.14314): the base model's matrices in 4 bits, adapters trained beside them.

What is evaluated, saved and handed over is one and the same: the adapters merged into the weights
as the 4 bits tell them, in fp32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from core.errors import InvalidRequest


def quantize(
    model: PreTrainedModel, names: Iterable[str], compute_dtype: torch.dtype | None
) -> PreTrainedModel:
    """The model with these linear layers' weights as NF4, with quantised scales, in place.

    Blocks of 64 weights are rounded each by itself: the same weights give the same bits anywhere.
    `compute_dtype` is what they are multiplied in; None means fp32. Raises InvalidRequest.
    """
    bnb = _bitsandbytes()
    for name in _linear(model, names):
        plain: Any = model.get_submodule(name)
        packed = bnb.nn.Linear4bit(
            plain.in_features,
            plain.out_features,
            bias=plain.bias is not None,
            compute_dtype=compute_dtype or torch.float32,
            quant_type="nf4",
            device="meta",
        )
        packed.weight = bnb.nn.Params4bit(
            plain.weight.detach(), requires_grad=False, quant_type="nf4", module=packed
        )
        packed.bias = plain.bias
        # In evaluations it would pack its weights anew for CPUs, and not back for training.
        packed.register_forward_pre_hook(_training)
        model.set_submodule(name, packed.to(plain.weight.device))
    marked: Any = model
    marked.is_loaded_in_4bit = True  # How PEFT knows.
    return model


def unpack(model: PeftModel) -> PeftModel:
    """Put plain linear layers in fp32, with the adapters merged into them, in place of those in 4
    bits, and all of the model on the CPU. PEFT's own merge would round the sums to 4 bits again."""
    bnb = _bitsandbytes()
    inner: Any = model.get_base_model()
    adapted: list[tuple[str, Any]] = [
        (name, part) for name, part in inner.named_modules() if isinstance(part, LoraLayer)
    ]
    for name, module in adapted:
        if isinstance(module.base_layer, bnb.nn.Linear4bit):
            packed = module.base_layer.weight
            weight = bnb.functional.dequantize_4bit(packed.data, packed.quant_state)
            plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
            weight = weight.float() + module.get_delta_weight("default").float()
            plain.weight = nn.Parameter(weight.cpu())
            plain.bias = module.base_layer.bias
            inner.set_submodule(name, plain)
    del inner.is_loaded_in_4bit
    return model.cpu()


def _linear(model: PreTrainedModel, names: Iterable[str]) -> list[str]:
    found = [name for name in names if isinstance(model.get_submodule(name), nn.Linear)]
    if not found:
        raise InvalidRequest(
            "The model's layers cannot be quantised: none of them is a plain linear layer.",
            hint="Leave `lora.quantization` out.",
            param="lora",
            code="unsupported_tuning",
        )
    return found


def _training(module: nn.Module, inputs: Any) -> None:
    module.train()


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise InvalidRequest(
            "`lora.quantization` needs the package bitsandbytes, which this worker has not.",
            hint="Leave it out, or install bitsandbytes on the worker.",
            param="lora",
        ) from error
    return bitsandbytes
