"""A pruned model as an ordinary checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..models.language_model import LanguageModel
from ..models.loading import DEFAULT_MODEL, GEMMA_TERMS, save_checkpoint

CARD = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")


def save_pruned(lm: LanguageModel, directory: str | Path) -> Path:
    """Write an ordinary checkpoint, and beside it a model card (README.md) and ``pruning.json``:
    how it was made.

    ``AutoModelForCausalLM.from_pretrained(directory)`` loads it.

    Args:
        lm: The model as it is now.
        directory: A folder that does not exist yet.

    Returns:
        The folder.

    Raises:
        FileExistsError: If the folder exists.
        ValueError: While an intervention such as :func:`zero_features` is active, which no
        checkpoint can hold.
    """
    if lm.interventions:
        raise ValueError(
            f"The intervention {lm.interventions[0]!r} is active in {lm.name}, and a checkpoint "
            "cannot hold it: save outside of its with block."
        )
    provenance = {"model": lm.name, "fingerprint": lm.fingerprint, "steps": lm.history}
    files = {
        "pruning.json": json.dumps(provenance, indent=2) + "\n",
        "README.md": _card(lm),
    }
    if lm.model.config.model_type.startswith("gemma"):
        files["NOTICE"] = GEMMA_TERMS + "\n"
    return save_checkpoint(lm, directory, files)


def _card(lm: LanguageModel) -> str:
    base = _public_name(lm)
    tags = dict.fromkeys(["pruned", *(step["method"] for step in lm.history)])
    steps = [_step_line(step) for step in lm.history]
    return CARD.format(
        base=base,
        quoted=json.dumps(base),
        tags="".join(f"- {json.dumps(tag)}\n" for tag in tags),
        steps="\n".join(steps) or "- not recorded",
    )


def _public_name(lm: LanguageModel) -> str:
    """The name on the hub; of a folder, only its own name: its path is nobody's business."""
    if lm.name == DEFAULT_MODEL:
        return "google/gemma-3-270m"
    return Path(lm.name).name if Path(lm.name).exists() else lm.name


def _step_line(step: dict[str, Any]) -> str:
    told = ", ".join(f"{key}: {value}" for key, value in step.items() if value is not None)
    return f"- {told}"
