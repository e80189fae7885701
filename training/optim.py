"""Optimizers, the learning rate's schedule, and what is done to gradients before a step.

A schedule is a pure function of the step, so there is no schedule state to lose in a resume.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from core.errors import InvalidRequest
from models.spec import ResolvedSpec
from training.layers import depths

EXPONENTIAL_END = 0.01
"""Where an exponential fall ends if it is not said, since it cannot reach 0."""


def create(model: nn.Module, spec: ResolvedSpec) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters; weight decay on matrices alone.

    Biases and the gains of norms are vectors, and decaying those moves a model towards silence
    rather than towards simplicity. Frozen parameters take no optimizer state. Raises
    InvalidRequest for an optimizer that this device has not.
    """
    factors = layer_factors(model, spec.layer_lr_decay)
    grouped: dict[tuple[bool, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            grouped[parameter.ndim >= 2, factors[name]].append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": of_group, "weight_decay": spec.weight_decay if decays else 0.0, "factor": factor}
        for (decays, factor), of_group in sorted(grouped.items(), key=lambda group: group[0])
    ]
    rate = spec.learning_rate
    adam: dict[str, Any] = {
        "betas": (spec.adam_beta1, spec.adam_beta2),
        "eps": spec.adam_epsilon,
    }
    match spec.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, fused=True, **adam)
        case "adamw_8bit":
            return _eight_bits(groups, rate, adam)
        case "sgd":
            return torch.optim.SGD(groups, lr=rate, momentum=spec.momentum, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=rate, eps=spec.adam_epsilon)
        case "adafactor":
            return torch.optim.Adafactor(groups, lr=rate)


def _eight_bits(
    groups: list[dict[str, Any]], rate: float, adam: dict[str, Any]
) -> torch.optim.Optimizer:
    if not groups[0]["params"][0].is_cuda:
        raise InvalidRequest(
            "`optimizer` 'adamw_8bit' needs a GPU, and this job runs on a CPU.",
            hint="Choose 'adamw', or 'adafactor' for less memory.",
            param="optimizer",
        )
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise InvalidRequest(
            "`optimizer` 'adamw_8bit' needs the package torchao, which this worker has not.",
            hint="Choose 'adamw', or install torchao on the worker.",
            param="optimizer",
        ) from error
    optimizer: torch.optim.Optimizer = AdamW8bit(groups, lr=rate, **adam)
    return optimizer


def layer_factors(model: nn.Module, decay: float) -> dict[str, float]:
    """What each parameter's rate is multiplied by: 1 in the head, and another `decay` with each
    step down (arXiv 1801.06146, section 3.2)."""
    return {name: decay**depth for name, depth in depths(model).items()}


def learning_rate(spec: ResolvedSpec, step: int) -> float:
    """The rate of optimizer step `step`, counted from 0, as transformers' schedules define it.

    Linear warm-up from 0 over `warmup_steps`, then to `total_steps` along the chosen curve.
    """
    peak, warmup = spec.learning_rate, spec.warmup_steps
    if step < warmup:
        return peak * step / warmup
    passed = min(1.0, (step - warmup) / max(1, spec.total_steps - warmup))
    end = spec.lr_end_ratio
    match spec.lr_scheduler:
        case "constant":
            return peak
        case "linear":
            return peak * (1 - passed)
        case "cosine":
            return peak * 0.5 * (1 + math.cos(math.pi * passed))
        case "cosine_with_restarts":
            turn = 1.0 if passed == 1 else spec.lr_cycles * passed % 1
            return peak * 0.5 * (1 + math.cos(math.pi * turn))
        case "polynomial":
            return peak * (end + (1 - end) * float((1 - passed) ** spec.lr_power))
        case "exponential":
            return peak * float((end or EXPONENTIAL_END) ** passed)
        case "wsd":
            # Warm-up, stable, decay by 1 - sqrt (arXiv 2405.18392, section 3).
            decay = round(spec.lr_decay_ratio * spec.total_steps)
            into = max(0.0, step - (spec.total_steps - decay)) / max(1, decay)
            return peak * (end + (1 - end) * (1 - math.sqrt(min(1.0, into))))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def add_l1(model: nn.Module, weight: float) -> None:
    """Add to the gradients that of `weight` times the sum of all matrices' absolute elements."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None and parameter.ndim >= 2:
                parameter.grad.add_(parameter.sign(), alpha=weight)


def normalise_gradients(model: nn.Module, count: float, max_norm: float) -> float:
    """Turn gradients of a summed loss into those of the mean over `count`, clipped to `max_norm`.

    Returns the norm of the mean's gradient before clipping. This is the one place where the mean
    is taken, so any split of a step into micro-batches gives the full batch's gradient. Mean and
    clipping are one pass over the gradients. A norm that is not finite leaves them as they were.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    total = nn.utils.get_total_norm(gradients)
    norm = float(total.full_tensor() if isinstance(total, DTensor) else total) / count
    if math.isfinite(norm):
        torch._foreach_mul_(gradients, min(1.0, max_norm / (norm + 1e-6)) / count)
    return norm
