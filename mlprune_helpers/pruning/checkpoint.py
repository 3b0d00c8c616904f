"""A pruned model as an ordinary checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from ..models.language_model import LanguageModel
from ..models.loading import DEFAULT_MODEL, GEMMA_TERMS, save_checkpoint

CARD = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")


def save_pruned(lm: LanguageModel, directory: str | Path) -> Path:
    """An ordinary checkpoint, and beside it a model card (README.md) and ``pruning.json``: how it was made.

    ``AutoModelForCausalLM.from_pretrained(directory)`` loads it.  Raises FileExistsError if the folder exists.
    """
    base = (
        "google/gemma-3-270m"
        if lm.name == DEFAULT_MODEL
        else Path(lm.name).name
        if Path(lm.name).exists()
        else lm.name
    )
    tags = "".join(
        f"- {tag}\n" for tag in dict.fromkeys(["pruned", *(step["method"] for step in lm.history)])
    )
    steps = "\n".join(
        "- " + ", ".join(f"{k}: {v}" for k, v in step.items() if v is not None)
        for step in lm.history
    )
    provenance = {"model": lm.name, "fingerprint": lm.fingerprint, "steps": lm.history}
    extra = {"pruning.json": json.dumps(provenance, indent=2) + "\n"}
    extra["README.md"] = CARD.format(
        base=base, quoted=json.dumps(base), tags=tags, steps=steps or "- not recorded"
    )
    if lm.model.config.model_type.startswith("gemma"):
        extra["NOTICE"] = GEMMA_TERMS + "\n"
    return save_checkpoint(lm, directory, extra)
