"""AdamW, the learning rate's schedule, and gradient clipping.

A schedule is a pure function of the step, so there is no schedule state to lose in a resume.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from models.spec import ResolvedSpec


def adamw(model: nn.Module, spec: ResolvedSpec) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; weight decay on matrices alone.

    Biases and the gains of norms are vectors, and decaying those moves a model towards silence
    rather than towards simplicity. Frozen parameters take no optimizer state.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=spec.learning_rate,
        betas=(spec.adam_beta1, spec.adam_beta2),
        eps=spec.adam_epsilon,
        fused=True,
    )


def learning_rate(spec: ResolvedSpec, step: int) -> float:
    """The rate of optimizer step `step`, counted from 0, as transformers' schedules define it.

    Linear warm-up from 0 over `warmup_steps`, then to 0 at `total_steps` along a line or half a
    cosine, or constant.
    """
    if step < spec.warmup_steps:
        return spec.learning_rate * step / spec.warmup_steps
    if spec.lr_scheduler == "constant":
        return spec.learning_rate
    passed = (step - spec.warmup_steps) / max(1, spec.total_steps - spec.warmup_steps)
    if spec.lr_scheduler == "cosine":
        return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * passed))
    return spec.learning_rate * max(0.0, 1 - passed)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def normalise_gradients(model: nn.Module, count: int, max_norm: float) -> float:
    """Turn gradients of a summed loss into those of the mean over `count`, clipped to `max_norm`.

    Returns the norm of the mean's gradient before clipping. This is the one place where the mean
    is taken, so any split of a step into micro-batches gives the full batch's gradient. Mean and
    clipping are one pass over the gradients. A norm that is not finite leaves them as they were.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = float(nn.utils.get_total_norm(gradients)) / count
    if math.isfinite(norm):
        torch._foreach_mul_(gradients, min(1.0, max_norm / (norm + 1e-6)) / count)
    return norm
