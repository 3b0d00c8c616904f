"""A causal language model, its tokenizer, and the names of its parts."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .architecture import ModelError, _decoder_blocks

VOCABULARY_PART = 16_384  # words whose logits are held at once in scoring


@dataclass
class LanguageModel:
    """A causal language model in evaluation mode, its tokenizer, and the names of the parts that matter here.

    The tokenizer is never changed: no token is added, ``padding_side`` stays as it was.  ``layers``: decoder blocks,
    ``prunable``: {qualified name: every Linear or Conv1D inside them}, both in order.  ``interventions``: what hooks
    change in the forward pass now, part of the fingerprint.  ``history``: what was done to the weights since loading.
    """

    name: str
    model: PreTrainedModel
    tokenizer: object
    layers: list[nn.Module] = field(init=False, repr=False)
    prunable: dict[str, nn.Module] = field(init=False, repr=False)
    interventions: list[str] = field(default_factory=list, repr=False)
    history: list[dict] = field(default_factory=list, repr=False)

    def __post_init__(self):
        self.model.eval()
        prefix, self.layers = _decoder_blocks(self.model)
        self.prunable = {
            f"{prefix}.{i}.{name}": module
            for i, block in enumerate(self.layers)
            for name, module in block.named_modules()
            if type(module) in (nn.Linear, Conv1D)
        }
        known = {id(module.weight) for module in self.prunable.values()}
        inside = [
            (n, p)
            for n, p in self.model.named_parameters()
            if n.startswith(f"{prefix}.") and p.ndim > 1
        ]
        if others := [n for n, p in inside if id(p) not in known] or (
            [] if known else [f"{prefix}.0"]
        ):
            raise ModelError(
                f"{self.name}: not all weights inside its decoder blocks are those of a torch Linear or Conv1D; the first "
                f"is {others[0]}. Mixtures of experts and quantised layers are not supported: choose a dense model in "
                "float32, float16 or bfloat16."
            )
        if away := [n for n, p in self.model.named_parameters() if p.is_meta]:
            raise ModelError(
                f"{self.name}: {away[0]} and {len(away) - 1} more are offloaded to memory or disk. All weights must be on "
                "devices: pass a smaller dtype, another device_map, or choose a smaller model."
            )

    @property
    def decoder(self) -> nn.Module:
        """The model without its output head: token ids in, final hidden states out."""
        return getattr(self.model, self.model.base_model_prefix)

    @property
    def device(self) -> torch.device:
        """Where token ids go in."""
        return self.model.get_input_embeddings().weight.device

    @property
    def hidden_size(self) -> int:
        return (
            self.model.config.get_text_config().hidden_size
        )  # OPT-350M embeds into fewer dimensions

    @property
    def max_positions(self) -> int | None:
        """The longest input the architecture accepts, or None where it states none."""
        config = self.model.config.get_text_config()
        return getattr(config, "max_position_embeddings", None) or getattr(
            config, "n_positions", None
        )

    @property
    def window(self) -> int | None:
        """Tokens that a sliding window of attention sees, or None where no block has one."""
        return getattr(self.model.config.get_text_config(), "sliding_window", None)

    @property
    def final_norm(self) -> nn.Module:
        """The normalisation between the last block and the output head (for the logit lens)."""
        prefix, _ = _decoder_blocks(self.model)
        beside = self.model.get_submodule(prefix.rpartition(".")[0]).named_children()
        norms = [
            m
            for name, m in beside
            if "embed" not in name and getattr(getattr(m, "weight", None), "ndim", 0) == 1
        ]
        if len(norms) != 1:
            raise ModelError(
                f"{self.name}: expected one final normalisation beside the blocks, found {len(norms)}."
            )
        return norms[0]

    @property
    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) of the weights as they are now and of the active interventions.

        Hashing reads every weight, about a second per gigabyte, so a weight changed by any means changes it.
        """
        digest = hashlib.sha256(type(self.model).__name__.encode())
        for name, tensor in self.model.named_parameters():
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(
                memoryview(tensor.detach().cpu().contiguous().view(torch.uint8).numpy()).cast("B")
            )
        for intervention in self.interventions:
            digest.update(intervention.encode())
        return digest.hexdigest()[:16]

    @contextlib.contextmanager
    def intervening(self, kind: str, *content: object) -> Iterator[None]:
        """Meanwhile the fingerprint is another one, by ``kind`` and ``content``: arrays, or what repr tells."""
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

    def run(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options):
        """The decoder on padded ids, each real token at its own position whichever side the padding is on.

        ``attention_mask`` (batch, cached + length) covers a cache in ``past_key_values`` too.
        """
        if (
            "position_ids" in inspect.signature(self.decoder.forward).parameters
        ):  # BLOOM has none: it reads the mask
            positions = (attention_mask.cumsum(dim=1) - 1).clamp_min(0)[:, -input_ids.shape[1] :]
            options["position_ids"] = positions.to(self.device)
        options = {"use_cache": False} | options
        return self.decoder(
            input_ids=input_ids.to(self.device),
            attention_mask=attention_mask.to(self.device),
            **options,
        )

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Output head on final hidden states (..., hidden_size) → (..., vocabulary), as the model computes it."""
        return self._capped(self.model.get_output_embeddings()(hidden))

    def log_probabilities(
        self, hidden: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Log-probability (n,) of ``tokens`` (n,) after the final hidden states ``hidden[rows]``, in float32.

        The vocabulary goes by in parts: a part of the head stays in the processor's cache for all states, and the
        logits of a large vocabulary are never held whole.
        """
        head = self.model.get_output_embeddings()
        hidden, rows, tokens = (x.to(head.weight.device) for x in (hidden, rows, tokens))
        values, total, top = (
            torch.zeros(len(rows), device=hidden.device),
            0,
            torch.tensor(-torch.inf, device=hidden.device),
        )
        for begin in range(0, len(head.weight), VOCABULARY_PART):
            part = slice(begin, begin + VOCABULARY_PART)
            bias = None if head.bias is None else head.bias[part]
            logits = self._capped(nn.functional.linear(hidden, head.weight[part], bias)).float()
            inside = (begin <= tokens) & (tokens < begin + VOCABULARY_PART)
            values[inside] = logits[rows[inside], tokens[inside] - begin]
            peak = torch.maximum(top, logits.amax(dim=1, keepdim=True))
            total = total * (top - peak).exp() + logits.sub_(peak).exp_().sum(dim=1, keepdim=True)
            top = peak
        return values - (top + total.log())[rows, 0]

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)
