"""What this package assumes of a model, held against plain forward passes on two short strings.

A model that passes is computed exactly, whatever its architecture; one that does not is refused,
and the error says what differs.  It takes about as long as ten short forward passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from .architecture import BlockCall, ModelError, hidden_output, weight_matrix
from .special_tokens import SAMPLES


class Probed(Protocol):
    """What is asked of a language model here, and what is set on it."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prefix: list[int]
    decoder: nn.Module
    layers: list[nn.Module]
    prunable: dict[str, nn.Module]
    pads_left: bool
    _output_class: type
    _blocks_return_tuples: bool
    _head_in_parts: bool

    @property
    def device(self) -> torch.device: ...

    def run(self, input_ids: Tensor, attention_mask: Tensor, **options: Any) -> Any: ...

    def into_blocks(
        self, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, list[BlockCall]]: ...

    def logits(self, hidden: Tensor) -> Tensor: ...

    def log_probabilities(self, hidden: Tensor, rows: Tensor, tokens: Tensor) -> Tensor: ...


#: Largest difference taken for rounding, relative to the largest of the values compared.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5}
TOLERANCE_OF_HALVES = 5e-2
#: Tokens of the longer string; a few more than the shorter one has.
LONGEST = 20
SHORTEST = 11
#: Tokens at their ends that are fed to a cache.
REST = 3


def refuse_encoders(lm: Probed) -> None:
    """Change the second half of a string; nothing that the model says of the first half may change.

    Raises:
        ModelError: For a model that sees later tokens, or does not run at all.
    """
    ids, _ = _two_strings(lm)
    try:
        logits = _plain_logits(lm, [ids, _with_other_end(ids)])
    except Exception as error:  # whatever a model's own code may raise
        raise ModelError(
            f"{lm.name}: this {lm.model.config.model_type!r} model does not run on a plain text "
            f"({type(error).__name__}: {error}). {_NEXT}"
        ) from error
    unchanged = len(ids) // 2
    if not _close(logits[1, :unchanged], logits[0, :unchanged]):
        raise ModelError(
            f"{lm.name}: what this {lm.model.config.model_type!r} model says of a token depends on "
            "later tokens: it is a bidirectional encoder, and cannot score or continue texts. "
            "Choose a decoder-only language model, for example 'gemma-3-270m' or "
            "'bigscience/bloom-560m'."
        )


@torch.inference_mode()
def probe(lm: Probed, around_blocks: list[nn.Module]) -> None:
    """Learn what the model's parts return, and prove that they make up its plain forward pass.

    Args:
        lm: The model; what is learnt is set on it.
        around_blocks: Modules one of which is its decoder, outermost first.

    Raises:
        ModelError: Naming what differs.
    """
    try:
        _Probe(lm).run(around_blocks)
    except ModelError:
        raise
    except Exception as error:  # whatever a model's own code may raise on calls it does not expect
        raise ModelError(
            f"{lm.name}: this {lm.model.config.model_type!r} model cannot be run part by part "
            f"({type(error).__name__}: {error}). {_NEXT}"
        ) from error


_NEXT = "This package would compute other numbers than the model does: choose another architecture."


class _Probe:
    """The steps of the probe, and what the plain passes gave."""

    def __init__(self, lm: Probed):
        self.lm = lm
        self.long, self.short = _two_strings(lm)
        self.decoder_outputs: list[Any] = []
        self.block_outputs: list[Any] = []
        self.used = dict.fromkeys(lm.prunable, 0)

    def run(self, around_blocks: list[nn.Module]) -> None:
        self.lm.decoder = self._first_called(around_blocks)
        logits = self._plain_pass()
        self._learn()
        long, short = (output[0][0] for output in self.decoder_outputs)
        self._check_head(long, logits)
        self._check_right_padding(long, short)
        self._check_cache(long, short)
        self._check_blocks()

    def _first_called(self, modules: list[nn.Module]) -> nn.Module:
        """OPT's model has its decoder called, and not the module around it."""
        called: list[nn.Module] = []
        with ExitStack() as hooks:
            for module in modules:
                note = partial(_note, called)
                hooks.enter_context(module.register_forward_pre_hook(note))
            _plain_logits(self.lm, [self.short])
        if not called:
            raise ModelError(f"{self.lm.name}: no module around its blocks is called. {_NEXT}")
        return called[0]

    def _plain_pass(self) -> Tensor:
        """Plain passes of both strings, whose states hooks keep; logits of the long one."""
        lm = self.lm

        def keep_decoder_output(module: nn.Module, args: tuple, output: Any) -> None:
            self.decoder_outputs.append(output)

        def keep_block_output(module: nn.Module, args: tuple, output: Any) -> None:
            self.block_outputs.append(output)

        with lm.decoder.register_forward_hook(keep_decoder_output):
            with ExitStack() as hooks:
                for block in lm.layers:
                    hooks.enter_context(block.register_forward_hook(keep_block_output))
                hooks.enter_context(self._watching_matrices())
                logits = _plain_logits(lm, [self.long])[0]
            _plain_states(lm, [self.short])
        return logits

    @contextmanager
    def _watching_matrices(self) -> Iterator[None]:
        """Check that every prunable matrix is used, as a linear map with its weight."""
        with ExitStack() as hooks:
            for name, module in self.lm.prunable.items():

                def watch(module: nn.Module, args: tuple, output: Tensor, name: str = name) -> None:
                    self.used[name] += 1
                    bias = cast(Tensor | None, module.bias)
                    if type(module) not in (nn.Linear, Conv1D):  # Falcon has a Linear of its own
                        expected = nn.functional.linear(args[0], weight_matrix(module), bias)
                        self._expect(
                            output, expected, f"the output of {name}, taken as a linear map,"
                        )

                hooks.enter_context(module.register_forward_hook(watch))
            yield

    def _learn(self) -> None:
        lm = self.lm
        unused = [name for name, times in self.used.items() if times == 0]
        if unused:
            raise ModelError(
                f"{lm.name}: {unused[0]} and {len(unused) - 1} more matrices are not called in a "
                "forward pass on text alone, so their inputs cannot be seen. Blocks with "
                f"cross-attention, made for another model's encoder, are such. {_NEXT}"
            )
        if len(self.block_outputs) != len(lm.layers):
            raise ModelError(
                f"{lm.name}: {len(lm.layers)} blocks ran {len(self.block_outputs)} times. {_NEXT}"
            )
        lm._blocks_return_tuples = isinstance(self.block_outputs[0], tuple)
        lm._output_class = type(self.decoder_outputs[0])

    def _check_head(self, hidden: Tensor, plain: Tensor) -> None:
        """The head asked alone: whole, and in parts of the vocabulary."""
        lm = self.lm
        self._expect(lm.logits(hidden), plain, "its output head, asked alone,")
        rows = torch.arange(len(self.long) - 1)
        tokens = torch.tensor(self.long[1:])
        expected = plain.float().log_softmax(dim=-1)[rows, tokens]
        lm._head_in_parts = type(lm.model.get_output_embeddings()) is nn.Linear
        try:
            # What the model does to logits may need all of them: then its head runs whole.
            fits = _close(lm.log_probabilities(hidden, rows, tokens), expected)
        except (RuntimeError, IndexError):
            fits = False
        if not fits:
            lm._head_in_parts = False
            got = lm.log_probabilities(hidden, rows, tokens)
            self._expect(got, expected, "log-probabilities from its output head")

    def _check_right_padding(self, long: Tensor, short: Tensor) -> None:
        """Both strings in a batch, and one with another end: no state depends on later tokens."""
        ids, mask = _padded([self.long, self.short, _with_other_end(self.long)], left=False)
        hidden = self.lm.run(ids, mask, check_finite=False)[0]
        what = "hidden states in a batch padded on the right"
        self._expect(hidden[0], long, what)
        self._expect(hidden[1, : len(self.short)], short, what)
        unchanged = len(self.long) // 2
        self._expect(hidden[2, :unchanged], long[:unchanged], "what precedes changed tokens")

    def _check_cache(self, long: Tensor, short: Tensor) -> None:
        """Strings in two passes, the second from a cache, as choices are scored."""
        lm = self.lm
        for ids, plain in ((self.long, long), (self.short, short)):
            self._expect(
                self._in_two_passes([ids])[0], plain, "hidden states that go on from a cache"
            )
        states = self._in_two_passes([self.long, self.short])
        lm.pads_left = all(map(_close, states, (long, short)))  # not so for BLOOM in float64

    def _in_two_passes(self, strings: list[list[int]]) -> list[Tensor]:
        """States of strings: beginnings padded on the left, the last tokens from a cache."""
        ids, mask = _padded([string[:-REST] for string in strings], left=True)
        first = self.lm.run(ids, mask, use_cache=True, check_finite=False)
        ends = torch.tensor([string[-REST:] for string in strings])
        whole_mask = torch.cat([mask, torch.ones_like(ends)], dim=1)
        second = self.lm.run(
            ends,
            whole_mask,
            use_cache=True,
            past_key_values=first.past_key_values,
            check_finite=False,
        )
        return [
            torch.cat([first[0][row][mask[row].bool()], second[0][row]])
            for row in range(len(strings))
        ]

    def _check_blocks(self) -> None:
        """The blocks replayed one by one, on recorded calls, against the one pass.

        Each block runs on both strings before the next one does, as in pruning: so a block that
        looks at what another one kept aside sees what belongs to the other string.
        """
        lm = self.lm
        hidden, calls = lm.into_blocks(*_padded([self.long], left=False))
        other, other_calls = lm.into_blocks(*_padded([self.short], left=False))
        if len(calls) != len(lm.layers):
            raise ModelError(f"{lm.name}: {len(calls)} calls of {len(lm.layers)} blocks. {_NEXT}")
        for layer, block in enumerate(lm.layers):
            hidden = calls[layer].repeat(block, hidden)
            other = other_calls[layer].repeat(block, other)
            expected = hidden_output(self.block_outputs[layer])
            self._expect(hidden, expected, "the output of blocks replayed one by one")

    def _expect(self, got: Tensor, expected: Tensor, what: str) -> None:
        if got.shape != expected.shape:
            raise ModelError(
                f"{self.lm.name}: {what} has the shape {tuple(got.shape)}, not "
                f"{tuple(expected.shape)}. {_NEXT}"
            )
        if not _close(got, expected):
            worst = (got.float() - expected.float()).abs().max()
            raise ModelError(
                f"{self.lm.name}: {what} differs from a plain forward pass of this "
                f"{self.lm.model.config.model_type!r} model, by up to {worst:.2g}. {_NEXT}"
            )


def _close(got: Tensor, expected: Tensor) -> bool:
    """Equal but for rounding, and not finite at the same places.

    A model that overflows is no other kind of model: what runs it says that it overflows.
    """
    got = got.to(expected.device)
    finite = torch.isfinite(expected)
    if not torch.equal(torch.isfinite(got), finite):
        return False
    if not finite.any():
        return True
    tolerance = TOLERANCE.get(expected.dtype, TOLERANCE_OF_HALVES)
    got, expected = got[finite].float(), expected[finite].float()
    size = expected.abs().max().clamp_min(1e-3)
    return bool((got - expected).abs().max() <= tolerance * size)


def _note(called: list[nn.Module], module: nn.Module, args: tuple) -> None:
    called.append(module)


def _plain_logits(lm: Probed, rows: list[list[int]]) -> Tensor:
    """A plain forward pass of strings of one length: (strings, length, vocabulary)."""
    with torch.inference_mode():
        ids = torch.tensor(rows, device=lm.device)
        return lm.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits


def _plain_states(lm: Probed, rows: list[list[int]]) -> Any:
    """The same without the output head."""
    ids = torch.tensor(rows, device=lm.device)
    return lm.decoder(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)


def _with_other_end(ids: list[int]) -> list[int]:
    """The same ids up to the middle, others after it."""
    middle = len(ids) // 2
    return ids[:middle] + ids[middle - 1 : -1][::-1]


def _two_strings(lm: Probed) -> tuple[list[int], list[int]]:
    """Token ids of two short strings, of different lengths, with the special tokens in front."""
    texts = [lm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in SAMPLES]
    long, short = (lm.prefix + list(ids) for ids in texts)
    return (long * LONGEST)[:LONGEST], (short * SHORTEST)[:SHORTEST]


def _padded(rows: list[list[int]], *, left: bool) -> tuple[Tensor, Tensor]:
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        place = slice(length - len(row), None) if left else slice(len(row))
        ids[i, place] = torch.tensor(row)
        mask[i, place] = 1
    return ids, mask
