"""The loss's scale in fp16, whose smallest numbers gradients would fall below.

A step whose scaled gradient is too large is done again at half the scale, not left out: the step's
rows and its learning rate are functions of its number.
"""

from __future__ import annotations

from training.state import RunState

INITIAL = 2.0**12
HIGHEST = 2.0**24
PATIENCE = 1000
"""Steps without a fall before the scale is doubled."""


def lower(state: RunState) -> bool:
    """Halve the scale; whether that was still possible."""
    if state.loss_scale <= 1:
        return False
    state.loss_scale, state.steps_at_scale = state.loss_scale / 2, 0
    return True


def after_step(state: RunState) -> None:
    """Double a scale that has been borne for long. One of 1 was never wanted, and stays."""
    if state.loss_scale <= 1:
        return
    state.steps_at_scale += 1
    if state.steps_at_scale >= PATIENCE and state.loss_scale < HIGHEST:
        state.loss_scale, state.steps_at_scale = state.loss_scale * 2, 0
