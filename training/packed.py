"""The hooks that keep a stack of layers free of padding.

Before the first layer the sequences of a padded batch are put one behind the other, and where the
stack ends the padding comes back. What the layers are called with beside their states, such as
positions, is packed like them, and `segments` tells `attention.attend` the layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers.utils.generic import ModelOutput

from training.layout import Segments

WINDOWS = ("sliding_window", "attention_chunk_size", "local_attention")


class PackedStack:
    """The hooks on a body and its layers, and the layout of the batch under way.

    The layout stays until the next batch: with gradient checkpointing the layers run once more
    during the backward pass.
    """

    def __init__(self, body: nn.Module, layers: nn.ModuleList, end: nn.Module) -> None:
        """`body` is called with the batch's mask. Behind `end`, the last layer or the body itself,
        the padding comes back."""
        self.segments: Segments | None = None
        self.used = False
        self.wanted: torch.Tensor | None = None
        """(rows, longest): the tokens of the next batch whose states are asked for; others' may be
        zeros. None: all, or the first of each sequence where they are `first_alone`."""
        self.first_alone = False
        self.tail: list[nn.Module] = []
        """The parts of the last layer that work on the tokens asked for alone."""
        self._chosen: tuple[torch.Tensor, Segments] | None = None
        self._left: Segments | None = None
        """The layout of what leaves the last layer."""
        self._entered = False
        self._flat: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        config: Any = body.config
        limits = [getattr(config, name, None) for name in WINDOWS]
        self._longest = min((limit for limit in limits if isinstance(limit, int)), default=None)
        self._distances = [
            _Distances(module)
            for module in layers.modules()
            if hasattr(module, "compute_bias") and hasattr(module, "has_relative_attention_bias")
        ]
        self._handles = [body.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for layer in layers:
            self._handles.append(layer.register_forward_pre_hook(self._enter, with_kwargs=True))
        self._handles.append(end.register_forward_hook(self._leave))

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the hooks, and nothing of the batch under way."""
        of_batch: dict[str, Any] = {
            "segments": None,
            "wanted": None,
            "_chosen": None,
            "_left": None,
            "_flat": {},
        }
        return {**self.__dict__, **of_batch}

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        for distances in self._distances:
            distances.remove()

    def narrow(self, layer: nn.Module, part: int) -> RemovableHandle:
        """Behind this part of the last layer, work on the tokens asked for alone. Whether their
        states come out of that is for the caller to see."""
        parts = list(layer.children())
        self.tail = parts[part + 1 :]
        handle = parts[part].register_forward_hook(self._choose)
        self._handles.append(handle)
        return handle

    @property
    def narrowed(self) -> bool:
        """Whether the newest batch was."""
        return self._left is not self.segments

    def _begin(
        self, body: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Take the mask of a batch that comes whole: one that goes on from a cache does not."""
        self.segments = self._layout(kwargs) if self._whole(kwargs) else None
        self._flat, self._entered, self._left, self._chosen = {}, False, self.segments, None
        for distances in self._distances:
            distances.follow(self.segments)
        if self.segments is None:
            return None
        self.used = True
        if self.tail and (self.wanted is not None or self.first_alone):
            self._chosen = self.segments.chosen(self.wanted)
        return args, {**kwargs, **self._without_padding(kwargs, self.segments)}

    def _whole(self, kwargs: Mapping[str, Any]) -> bool:
        mask = kwargs.get("attention_mask")
        return (
            isinstance(mask, torch.Tensor)
            and mask.ndim == 2
            and kwargs.get("past_key_values") is None
            and not kwargs.get("use_cache")
            and (self._longest is None or mask.shape[1] <= self._longest)
        )

    def _layout(self, kwargs: Mapping[str, Any]) -> Segments:
        return Segments.of(kwargs["attention_mask"])

    def _without_padding(self, kwargs: Mapping[str, Any], segments: Segments) -> dict[str, Any]:
        """What the body is called with in place of what it was."""
        return {"attention_mask": None, "use_cache": False}

    def _enter(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self.segments is None:
            return None
        self._entered = True
        flat = {name: self._flattened(value) for name, value in kwargs.items()}
        return tuple(map(self._flattened, args)), {**flat, "segments": self.segments}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _choose(self, part: nn.Module, args: Any, output: Any) -> Any:
        if self._chosen is None:
            return None
        places, self._left = self._chosen
        if isinstance(output, tuple):
            return output[0].index_select(1, places), *output[1:]
        return output.index_select(1, places)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        # A body that drops layers at random may have left out all of them.
        if self._left is None or not self._entered:
            return None
        if isinstance(output, ModelOutput):
            states: Any = output
            states.last_hidden_state = self._left.padded(states.last_hidden_state)
            return states
        if isinstance(output, tuple):
            return self._left.padded(output[0]), *output[1:]
        return self._left.padded(output)

    def _flattened(self, value: Any) -> Any:
        """What holds a value for each place of the padded batch, for each token."""
        assert self.segments is not None
        if isinstance(value, tuple):
            return tuple(map(self._flattened, value))
        rows, longest = self.segments.shape
        if (
            not isinstance(value, torch.Tensor)
            or value.ndim < 2
            or value.shape[0] not in (1, rows)
            or value.shape[1] != longest
        ):
            return value
        if value.requires_grad:
            return self.segments.flat(value)
        # Positions and the like, which every layer is given anew.
        if id(value) not in self._flat:
            self._flat[id(value)] = value, self.segments.flat(value)
        return self._flat[id(value)][1]


class PackedDecoder(PackedStack):
    """The same for a decoder that looks at an encoder's states: those are packed as well, once for
    all layers, and in the order of the decoder's sequences."""

    _source: torch.Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_source": None}

    def _whole(self, kwargs: Mapping[str, Any]) -> bool:
        mask = kwargs.get("encoder_attention_mask")
        return isinstance(mask, torch.Tensor) and mask.ndim == 2 and super()._whole(kwargs)

    def _layout(self, kwargs: Mapping[str, Any]) -> Segments:
        return Segments.of_pairs(kwargs["attention_mask"], kwargs["encoder_attention_mask"])

    def _without_padding(self, kwargs: Mapping[str, Any], segments: Segments) -> dict[str, Any]:
        assert segments.source is not None
        self._source = segments.source.flat(kwargs["encoder_hidden_states"])
        return {
            **super()._without_padding(kwargs, segments),
            "encoder_hidden_states": self._source,
            "encoder_attention_mask": None,
        }

    def _flattened(self, value: Any) -> Any:
        # It may have as many tokens as the decoder's longest row has places.
        return value if value is self._source else super()._flattened(value)


class _Distances:
    """Stands for `compute_bias` of attention that learns a number for each distance between tokens
    and adds it to the scores, as T5's does.

    Such attention makes a bias for each pair of the tokens that it is given: of a pack for far too
    many, and counting on from one sequence to the next. Here it is made for the longest sequence
    alone, whose distances are those of all, and handed on as one row of numbers, which nothing
    takes for values of the batch's places.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._learns: bool = module.has_relative_attention_bias
        self._segments: Segments | None = None
        module.compute_bias = self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_segments": None}

    def follow(self, segments: Segments | None) -> None:
        self._segments = segments
        # What learns none would make zeros, were it not to ask here.
        self._module.has_relative_attention_bias = self._learns or segments is not None

    def remove(self) -> None:
        self.follow(None)
        del self._module.compute_bias

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, queries: int, keys: int, **beside: Any) -> torch.Tensor:
        if self._segments is not None and not self._learns:
            return torch.empty(0, device=beside.get("device"))
        if self._segments is not None:
            queries = keys = self._segments.shape[1]
        bias: torch.Tensor = type(self._module).compute_bias(self._module, queries, keys, **beside)
        return bias if self._segments is None else bias.flatten()
