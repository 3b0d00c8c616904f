"""A causal language model, its tokenizer, and the names of its parts.

Everything a model or tokenizer does is asked of it: the output head with all its scaling runs
inside the model's own forward pass, special tokens are those that the tokenizer puts.
:func:`.probe.probe` proves at the start that what is asked piece by piece equals the plain forward
pass.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .architecture import (
    BlockCall,
    ModelError,
    find_anatomy,
    hidden_parameter,
    longest_input,
    refuse_by_kind,
    replaced_forward,
    split_call,
    without_hooks,
)
from .probe import probe, refuse_encoders
from .special_tokens import SAMPLES, learn_special_tokens

#: Words whose logits are held at once in scoring.
VOCABULARY_PART = 16_384
#: Weights are hashed in pieces of so many bytes, several at once.
_PIECE = 2**26
#: Settings that say nothing of what the model computes: where it came from, and what its weights
#: say themselves.
_NOT_IDENTITY = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"}


@dataclass
class LanguageModel:
    """A causal language model in evaluation mode, and its tokenizer, which is never changed.

    Attributes:
        name: What it was loaded as.
        model, tokenizer: As transformers has them.
        layers: The decoder blocks, in order.
        prunable: {qualified name: every Linear or Conv1D inside the blocks}, in order.
        prefix, suffix: Special tokens that the tokenizer puts before and after every text.
        decoder: The model without its output head: token ids in, final hidden states out.
        pads_left: Whether strings padded on the left are computed as they are alone.  Where not,
            batches hold strings of one length.
        interventions: What hooks change in the forward pass now; part of the fingerprint.
        history: What was done to the weights since loading.

    Raises:
        ModelError: For a model that this package would not compute exactly, naming what differs.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    decoder: nn.Module = field(init=False, repr=False)
    layers: list[nn.Module] = field(init=False, repr=False)
    prunable: dict[str, nn.Module] = field(init=False, repr=False)
    pads_left: bool = field(init=False, repr=False)
    prefix: list[int] = field(init=False, repr=False)
    suffix: list[int] = field(init=False, repr=False)
    interventions: list[str] = field(default_factory=list, repr=False)
    history: list[dict] = field(default_factory=list, repr=False)
    #: Learnt by the probe: what the decoder returns, whether blocks return tuples, whether the head
    #: works in parts.
    _output_class: type = field(default=tuple, init=False, repr=False)
    _blocks_return_tuples: bool = field(default=False, init=False, repr=False)
    _head_in_parts: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        self.model.eval()
        _refuse_offloaded(self.name, self.model)
        refuse_by_kind(self.name, self.model)
        special = learn_special_tokens(self.name, self.tokenizer)
        self.prefix, self.suffix = special.prefix, special.suffix
        self._refuse_larger_tokenizer()
        refuse_encoders(self)
        anatomy = find_anatomy(self.name, self.model)
        self.layers = anatomy.layers
        self.prunable = anatomy.prunable
        probe(self, anatomy.around_blocks)

    def _refuse_larger_tokenizer(self) -> None:
        if self.tokenizer.vocab_size > self.n_embeddings:
            raise ModelError(
                f"{self.name}: the tokenizer has {self.tokenizer.vocab_size} tokens, the model "
                f"embeddings for {self.n_embeddings}. They are not a pair: load the tokenizer that "
                "belongs to this model."
            )

    # -- sizes and places --------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where token ids go in."""
        return self._embeddings.device

    @property
    def _embeddings(self) -> Tensor:
        return cast(Tensor, self.model.get_input_embeddings().weight)

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        # Not that of the embeddings: OPT-350M embeds into fewer dimensions.
        return self.model.config.get_text_config().hidden_size

    @property
    def n_embeddings(self) -> int:
        """How many tokens the model can read: ids from 0 to below this."""
        return self._embeddings.shape[0]

    @property
    def max_positions(self) -> int | None:
        """The longest input that the architecture takes, or None where it states none."""
        return longest_input(self.model.config.get_text_config())

    @property
    def end_tokens(self) -> set[int]:
        """Ids after which a text is over, by the model's settings and the tokenizer's."""
        told = [self.tokenizer.eos_token_id, self.model.config.get_text_config().eos_token_id]
        told.append(getattr(getattr(self.model, "generation_config", None), "eos_token_id", None))
        flat = [
            token for ids in told for token in (ids if isinstance(ids, (list, tuple)) else [ids])
        ]
        return {int(token) for token in flat if token is not None}

    # -- identity ----------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """Identity of weights, configuration, tokenizer and active interventions (16 hex digits).

        Hashing reads every weight, half a second per gigabyte on one core, so a weight changed by
        any means changes it.
        """
        digest = hashlib.sha256(type(self.model).__name__.encode())
        for of_piece in _digests(self._weight_pieces()):
            digest.update(of_piece)
        digest.update(
            json.dumps(_identity(self.model.config.to_dict()), sort_keys=True, default=str).encode()
        )
        digest.update(repr(sorted(self.end_tokens)).encode())
        digest.update(self._tokenizer_digest.encode())
        # The tokenizer may have been given tokens or other settings since.
        now = [self.tokenizer(text)["input_ids"] for text in SAMPLES]
        digest.update(repr((len(self.tokenizer), now)).encode())
        for intervention in self.interventions:
            digest.update(intervention.encode())
        return digest.hexdigest()[:16]

    def _weight_pieces(self) -> Iterator[bytes | memoryview]:
        """Names, shapes and types of all saved tensors, each with its bytes after it."""
        for name, tensor in self._saved_tensors():
            yield f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode()
            values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            content = values.data.cast("B")
            for start in range(0, len(content), _PIECE):
                yield content[start : start + _PIECE]

    def _saved_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters, and those buffers that a checkpoint holds too; tied ones once."""
        yield from self.model.named_parameters()
        saved = self.model.state_dict().keys()
        for name, buffer in self.model.named_buffers():
            if name in saved:
                yield name, buffer

    @cached_property
    def _tokenizer_digest(self) -> str:
        """Of everything that the tokenizer knows; half a second for a vocabulary of 262,144."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:
            # What stands before the tokens is padding and truncation, which change with use.
            _, _, content = backend.to_str().partition('"added_tokens"')
        else:
            content = json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        return hashlib.sha256(f"{content}{self.prefix}{self.suffix}".encode()).hexdigest()

    @contextlib.contextmanager
    def intervening(self, kind: str, *content: object) -> Iterator[None]:
        """Meanwhile the fingerprint is another one, by ``kind`` and by what arrays or repr tell."""
        parts = [
            part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
            for part in content
        ]
        note = f"{kind} {hashlib.sha256(b';'.join(parts)).hexdigest()[:16]}"
        self.interventions.append(note)
        try:
            yield
        finally:
            self.interventions.remove(note)

    # -- the forward pass --------------------------------------------------------------------------

    def run(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        check_finite: bool = True,
        **options: Any,
    ) -> Any:
        """The decoder on padded ids, whichever side the padding is on.

        Each real token has its own position.

        Args:
            input_ids: (batch, length).
            attention_mask: (batch, cached + length): 1 where there is a token, those in a cache
                included.
            check_finite: Whether a hidden state of a token that is not finite is an error.
            **options: For the decoder, such as ``past_key_values`` and ``use_cache`` (off by
                default).

        Returns:
            What the decoder returns; the first of it are the final hidden states (batch, length,
            hidden).

        Raises:
            ValueError: If more tokens go in than there are positions, or states are not finite.
        """
        self.check_length(int(attention_mask.sum(dim=1).max()))
        starts_at_once = input_ids.shape == attention_mask.shape and bool(
            attention_mask[:, 0].all()
        )
        if self._takes_positions and not starts_at_once:  # BLOOM takes none: it reads the mask
            positions = (attention_mask.cumsum(dim=1) - 1).clamp_min(0)[:, -input_ids.shape[1] :]
            options["position_ids"] = positions.to(self.device)
        output = self._ask_decoder(input_ids, attention_mask, {"use_cache": False} | options)
        if check_finite:
            self._check_finite(output[0], attention_mask[:, -input_ids.shape[1] :])
        return output

    def _ask_decoder(self, input_ids: Tensor, mask: Tensor, options: dict[str, Any]) -> Any:
        try:
            return self.decoder(
                input_ids=input_ids.to(self.device), attention_mask=mask.to(self.device), **options
            )
        except IndexError as error:
            # Ids are checked where texts become ids, so it is a table of positions.
            raise ValueError(
                f"{self.name}: an input of {int(mask.sum(dim=1).max())} tokens is longer than its "
                f"table of positions ({error}). Shorten the texts, use fewer shots, or cut them: "
                "max_length=…."
            ) from None

    def check_length(self, n_tokens: int) -> None:
        """Raise ValueError if ``n_tokens`` are more than there are positions."""
        if self.max_positions is not None and n_tokens > self.max_positions:
            raise ValueError(
                f"{self.name}: {n_tokens} tokens; {self.max_positions} fit. Shorten the texts, use "
                "fewer shots, or cut them: max_length=…."
            )

    def _check_finite(self, hidden: Tensor, mask: Tensor) -> None:
        if torch.isfinite(hidden).all():
            return
        of_tokens = hidden[mask.bool().to(hidden.device)]  # padding may be anything
        if not torch.isfinite(of_tokens).all():
            raise ValueError(
                f"{self.name}: hidden states are not finite. Load the model in float32 or bfloat16."
            )

    @cached_property
    def _takes_positions(self) -> bool:
        return "position_ids" in inspect.signature(self.decoder.forward).parameters

    def into_blocks(
        self, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, list[BlockCall]]:
        """What block 0 receives, and how every block is called, without running any block.

        Returns:
            Hidden states (batch, length, hidden_size), and one call a block.
        """
        parameter = hidden_parameter(self.layers[0])
        entering: list[Tensor] = []
        calls: list[BlockCall] = []

        def hand_on(*args: Any, **kwargs: Any) -> Any:
            hidden, call = split_call(parameter, args, kwargs)
            entering.append(hidden)
            calls.append(call)
            return (hidden,) if self._blocks_return_tuples else hidden

        with replaced_forward(self.layers, hand_on):
            self.run(input_ids, attention_mask, check_finite=False)
        return entering[0], calls

    # -- the output head ---------------------------------------------------------------------------

    def logits(self, hidden: Tensor) -> Tensor:
        """What the model makes of final hidden states: its own head, with its own scaling.

        Args:
            hidden: (..., hidden), as the decoder puts them out.

        Returns:
            (..., vocabulary).
        """
        states = hidden.reshape(1, -1, hidden.shape[-1])
        returns_tuple = self._output_class is tuple
        output = (states,) if returns_tuple else self._output_class(last_hidden_state=states)
        one = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        with replaced_forward([self.decoder], lambda *args, **kwargs: output):
            logits = self.model(input_ids=one, use_cache=False).logits
        return logits.reshape(*hidden.shape[:-1], logits.shape[-1])

    def logits_after_blocks(self, hidden: Tensor) -> Tensor:
        """Logits from states (n, hidden_size) as the last block puts them out: (n, vocabulary).

        What the model does between its blocks and its head is done by the model: a norm, a
        projection.  Interventions act where the states came from, not once more here.
        """
        entering = hidden[:, None]
        ids = torch.zeros(entering.shape[:2], dtype=torch.long)
        returned = (entering,) if self._blocks_return_tuples else entering
        with without_hooks(self.layers), replaced_forward(self.layers, lambda *a, **k: returned):
            final = self.run(ids, torch.ones_like(ids))[0]
        return self.logits(final)[:, 0]

    def log_probabilities(self, hidden: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        """Log-probability of ``tokens`` (n,) after the final hidden states ``hidden[rows]``.

        The vocabulary goes by in parts: a part of the head stays in the processor's cache for all
        states, and the logits of a large vocabulary are never held whole.  What the model does to
        logits after its head (scales, caps) is done by the model, to every part.

        Args:
            hidden: (m, hidden) final hidden states.
            rows: (n,) which of them precedes each token.
            tokens: (n,) ids.

        Returns:
            (n,) in float32.
        """
        device = self.model.get_output_embeddings().weight.device
        hidden, rows, tokens = hidden.to(device), rows.to(device), tokens.to(device)
        values = torch.zeros(len(rows), device=device)
        top = torch.tensor(-torch.inf, device=device)
        total = torch.zeros(len(hidden), 1, device=device)
        begin = 0
        for logits in self._logits_in_parts(hidden):
            inside = (begin <= tokens) & (tokens < begin + logits.shape[1])
            values[inside] = logits[rows[inside], tokens[inside] - begin]
            peak = torch.maximum(top, logits.amax(dim=1, keepdim=True))
            total = total * (top - peak).exp() + logits.sub_(peak).exp_().sum(dim=1, keepdim=True)
            top = peak
            begin += logits.shape[1]
        return values - (top + total.log())[rows, 0]

    def _logits_in_parts(self, hidden: Tensor) -> Iterator[Tensor]:
        """Float32 logits (n, part of the vocabulary), part by part; the caller may change them."""
        if not self._head_in_parts:
            yield self.logits(hidden).float()
            return
        head = self.model.get_output_embeddings()
        for begin in range(0, len(head.weight), VOCABULARY_PART):
            part_of_head = _part_of(head, slice(begin, begin + VOCABULARY_PART))
            with replaced_forward([head], part_of_head):
                logits = self.logits(hidden)
            yield logits.float()


def _part_of(head: nn.Linear, words: slice) -> Callable[[Tensor], Tensor]:
    """An output head for a part of the vocabulary."""
    weight = head.weight[words]
    bias = None if head.bias is None else head.bias[words]

    def part_of_head(states: Tensor) -> Tensor:
        return nn.functional.linear(states, weight, bias)

    return part_of_head


def _refuse_offloaded(name: str, model: PreTrainedModel) -> None:
    away = [path for path, parameter in model.named_parameters() if parameter.is_meta]
    if away:
        raise ModelError(
            f"{name}: {away[0]} and {len(away) - 1} more are offloaded to memory or disk. All "
            "weights must be on devices: pass a smaller dtype, another device_map, or choose a "
            "smaller model."
        )


def _digests(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """SHA-256 of each piece, in their order; as many threads hash at once as torch has."""
    n_threads = torch.get_num_threads()
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(n_threads) as threads:
        for piece in pieces:
            waiting.append(threads.submit(_sha256, piece))
            if len(waiting) > 2 * n_threads:  # so that few pieces are in memory at once
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()


def _sha256(piece: bytes | memoryview) -> bytes:
    return hashlib.sha256(piece).digest()


def _identity(settings: Any) -> Any:
    """A configuration without what says nothing of the computation."""
    if isinstance(settings, dict):
        return {str(k): _identity(v) for k, v in settings.items() if k not in _NOT_IDENTITY}
    if isinstance(settings, Sequence) and not isinstance(settings, str):
        return [_identity(item) for item in settings]
    return settings
