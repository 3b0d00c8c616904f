"""The one room that knows one architecture from another.

Where the decoder blocks are, how they are called, which matrices inside them can be pruned, which
way round a weight is stored, and which kinds of models this package does not work on.  What is
found here is a guess until :mod:`.probe` has held it against a plain forward pass of the model
itself.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

#: Names under which configurations say how many positions there are, the most usual first.
POSITION_SETTINGS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
#: Rotary embeddings that change for *all* tokens once an input is longer than the original limit.
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


class ModelError(RuntimeError):
    """A model cannot be loaded, or is not of a kind that this package works on."""


def weight_matrix(module: nn.Module) -> Tensor:
    """The weight of a linear map as a view with one row an output.

    ``Linear`` stores its weight this way round, GPT-2's ``Conv1D`` the other.  No other place knows
    that.

    Args:
        module: A torch ``Linear`` or a transformers ``Conv1D``.

    Returns:
        A view (out_features, in_features); writing to it changes the module.

    Raises:
        TypeError: For any other module.
    """
    if isinstance(module, Conv1D):
        return module.weight.detach().T
    if isinstance(module, nn.Linear):
        return module.weight.detach()
    raise TypeError(
        f"weight_matrix takes a torch Linear or a transformers Conv1D, not {type(module).__name__}."
    )


def is_linear_map(module: nn.Module) -> bool:
    """Whether ``module`` is a linear map whose weight holds numbers and not codes."""
    return isinstance(module, (nn.Linear, Conv1D)) and module.weight.is_floating_point()


# -- what a model is made of -----------------------------------------------------------------------


@dataclass
class Anatomy:
    """The parts of a model, found by structure.

    Attributes:
        around_blocks: Modules that hold the blocks, outermost first.  The first one that a forward
            pass calls is the decoder: token ids in, final hidden states out.
        layers: The decoder blocks, in order.
        prunable: {qualified name: linear map inside the blocks}, in order.
    """

    around_blocks: list[nn.Module]
    layers: list[nn.Module]
    prunable: dict[str, nn.Module]


def find_anatomy(name: str, model: PreTrainedModel) -> Anatomy:
    """The parts of ``model``; ``name`` is what errors call it.

    Raises:
        ModelError: Where the blocks are not found, or hold weights that are not those of linear
            maps.
    """
    prefix, layers = _decoder_blocks(name, model)
    path = prefix.split(".")
    around = [model.get_submodule(".".join(path[:depth])) for depth in range(1, len(path))]
    if not around:
        raise ModelError(
            f"{name}: {type(model).__name__} has no decoder apart from its output head. "
            f"{_CHOOSE_DENSE}"
        )
    prunable = {
        f"{prefix}.{i}.{inner}": module
        for i, block in enumerate(layers)
        for inner, module in block.named_modules()
        if is_linear_map(module)
    }
    _refuse_other_weights(name, model, prefix, prunable)
    return Anatomy(around, layers, prunable)


def _decoder_blocks(name: str, model: PreTrainedModel) -> tuple[str, list[nn.Module]]:
    """Qualified name and contents of the one ModuleList that holds ``num_hidden_layers`` blocks."""
    n_layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    found = [
        (path, list(module))
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == n_layers
        and len({type(block) for block in module}) == 1
    ]
    # A list inside a block (experts, say) may happen to have the same length: the blocks are
    # outermost.
    paths = [path for path, _ in found]
    found = [
        (path, blocks)
        for path, blocks in found
        if not any(path.startswith(f"{other}.") for other in paths)
    ]
    if len(found) != 1:
        raise ModelError(
            f"{name}: {type(model).__name__}: expected one list of {n_layers} decoder blocks of "
            f"one type, found {[path for path, _ in found] or 'none'}. This package works on plain "
            "decoder-only transformers."
        )
    return found[0]


def _refuse_other_weights(
    name: str, model: PreTrainedModel, prefix: str, prunable: dict[str, nn.Module]
) -> None:
    known = {id(module.weight) for module in prunable.values()}
    others = [
        parameter_name
        for parameter_name, parameter in model.named_parameters()
        if parameter_name.startswith(f"{prefix}.")
        and parameter.ndim > 1
        and id(parameter) not in known
    ]
    if others or not known:
        raise ModelError(
            f"{name}: not all weights inside its decoder blocks are those of a torch Linear or "
            f"Conv1D; the first is {(others or [f'{prefix}.0'])[0]}. {_CHOOSE_DENSE}"
        )


def longest_input(config: PreTrainedConfig) -> int | None:
    """How many tokens a model computes as it computes fewer, or None where it states no limit."""
    stated = (getattr(config, setting, None) for setting in POSITION_SETTINGS)
    limits = [next((limit for limit in stated if limit), None)]
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in LENGTH_DEPENDENT_ROPE:
        # Past it one long string changes what is computed for all others of its batch.
        limits.append(rope.get("original_max_position_embeddings"))
        limits.append(getattr(config, "original_max_position_embeddings", None))
    # Past it Doge chooses keys among all tokens of the input, later ones too.
    limits.append(getattr(config, "keep_window_size", None))
    return min((limit for limit in limits if limit), default=None)


# -- kinds of models that are refused by name ------------------------------------------------------

_CHOOSE_DENSE = (
    "Choose a dense decoder-only transformer in float32, float16 or bfloat16, for example "
    "'gemma-3-270m' or 'bigscience/bloom-560m'."
)
#: Classes of what only a mixture has; whole models carry "Moe" in their names also where they are
#: built dense.
_EXPERT_CLASS = re.compile(r"Experts?$|(Moe|MoE|MOE)(Block|Layer|Gate)?$|Router$|^Expert")
_RECURRENT_CLASS = re.compile(
    r"Mamba|Rwkv|RWKV|Recurrent|RgLru|DeltaNet|LinearAttention|xLSTM|mLSTM|ShortConv|SSM"
)


def refuse_by_kind(name: str, model: PreTrainedModel) -> None:
    """Refuse what is recognised as quantised, recurrent, a mixture of experts or an adapter.

    Raises:
        ModelError: Naming the kind, what told it, and the next step.
    """
    kind = model.config.model_type
    for test, what in (
        (_quantised_part, "is quantised"),
        (_adapter_part, "carries an adapter that is not merged into its weights"),
        (_expert_part, "is a mixture of experts"),
        (_recurrent_part, "is recurrent: it has layers that carry a state instead of attention"),
    ):
        told_by = test(model)
        if told_by:
            raise ModelError(f"{name}: this {kind!r} model {what} ({told_by}). {_CHOOSE_DENSE}")


def _quantised_part(model: PreTrainedModel) -> str | None:
    if getattr(model, "hf_quantizer", None) is not None or getattr(model, "is_quantized", False):
        return "its checkpoint says so"
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and not weight.is_floating_point():
            return f"{path} holds {weight.dtype}"
    return None


def _adapter_part(model: PreTrainedModel) -> str | None:
    return next((path for path, _ in model.named_modules() if path.endswith("lora_A")), None)


def _expert_part(model: PreTrainedModel) -> str | None:
    return _first_of_class(model, _EXPERT_CLASS)


def _recurrent_part(model: PreTrainedModel) -> str | None:
    layer_types = getattr(model.config.get_text_config(), "layer_types", None) or ["unknown"]
    only_attention = all(
        kind.endswith(("full_attention", "sliding_attention")) for kind in layer_types
    )
    if getattr(model, "_is_stateful", False) and not only_attention:
        return "transformers calls it stateful"
    return _first_of_class(model, _RECURRENT_CLASS)


def _first_of_class(model: PreTrainedModel, pattern: re.Pattern) -> str | None:
    """The first module inside the model whose class has such a name."""
    for path, module in model.named_modules():
        if path and pattern.search(type(module).__name__):
            return f"{path} is a {type(module).__name__}"
    return None


# -- how blocks are called -------------------------------------------------------------------------


@dataclass
class BlockCall:
    """What a block was called with, apart from the hidden states, which are its first parameter."""

    parameter: str
    args: tuple
    kwargs: dict[str, Any]
    by_position: bool

    def repeat(self, block: nn.Module, hidden: Tensor) -> Tensor:
        """Call ``block`` in the same way on other hidden states → those that it returns."""
        if self.by_position:
            return hidden_output(block(hidden, *self.args, **self.kwargs))
        return hidden_output(block(**{self.parameter: hidden}, **self.kwargs))


def hidden_parameter(block: nn.Module) -> str:
    """The name of a block's first parameter, which takes the hidden states."""
    return next(iter(inspect.signature(block.forward).parameters))


def split_call(parameter: str, args: tuple, kwargs: dict[str, Any]) -> tuple[Tensor, BlockCall]:
    """The hidden states (batch, length, hidden_size) in a block's call, and the rest of it."""
    if args:
        return args[0], BlockCall(parameter, args[1:], dict(kwargs), by_position=True)
    rest = {key: value for key, value in kwargs.items() if key != parameter}
    return kwargs[parameter], BlockCall(parameter, (), rest, by_position=False)


def with_hidden_input(
    parameter: str, args: tuple, kwargs: dict[str, Any], hidden: Tensor
) -> tuple[tuple, dict[str, Any]]:
    """The arguments of a block with other hidden states in their place."""
    if args:
        return (hidden, *args[1:]), kwargs
    return args, {**kwargs, parameter: hidden}


def hidden_output(output: Any) -> Tensor:
    """The hidden states among what a block returns: itself, or the first of a tuple."""
    return output[0] if isinstance(output, tuple) else output


def with_hidden_output(output: Any, hidden: Tensor) -> Any:
    """What a block returned, with other hidden states in their place."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


@contextlib.contextmanager
def replaced_forward(modules: Sequence[nn.Module], forward: Callable) -> Iterator[None]:
    """Meanwhile calls of the modules go to ``forward``; hooks on them stay active.

    What stood there before comes back, also where accelerate has put a forward of its own.
    """
    own = [vars(module).get("forward") for module in modules]
    try:
        for module in modules:
            module.forward = forward
        yield
    finally:
        for module, before in zip(modules, own):
            if before is not None:
                module.forward = before
            elif "forward" in vars(module):
                del module.forward


@contextlib.contextmanager
def without_hooks(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Meanwhile no hook on the modules is called, such as those of interventions."""
    kept = []
    for module in modules:
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            kept.append((hooks, dict(hooks)))
            hooks.clear()
    try:
        yield
    finally:
        for hooks, content in kept:
            hooks.update(content)
