"""What pruning did, and how it is kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from ..files import written_beside


@dataclass
class PruningReport:
    """What :func:`prune` did.

    ``masks``: {prunable name: bool (out, in)}, True = pruned.  ``table``: a row a matrix with its shape, the sparsity
    asked and got, and the share of weights that were zero before.
    """

    method: str
    sparsity: float | str
    masks: dict[str, Tensor] = field(repr=False)
    table: pd.DataFrame = field(repr=False)
    settings: dict
    fingerprint_before: str
    fingerprint_after: str
    seconds: float

    @property
    def pruned_fraction(self) -> float:
        """Share of all prunable weights that the masks prune."""
        return float(
            (self.table["pruned"] * self.table["weights"]).sum() / self.table["weights"].sum()
        )

    def provenance(self) -> dict:
        """Everything but masks and table, ready for JSON."""
        keys = "method", "sparsity", "pruned_fraction", "fingerprint_before", "fingerprint_after"
        return (
            {key: getattr(self, key) for key in keys}
            | self.settings
            | {"seconds": round(self.seconds, 2)}
        )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, complete or not at all: the masks, eight weights in a byte, and the rest."""
        bits = {name: np.packbits(mask.numpy(), axis=1) for name, mask in self.masks.items()}
        rest = json.dumps({**vars(self), "masks": None, "table": self.table.to_dict("list")})
        with written_beside(path) as beside:
            save_file(bits, beside, {"report": rest})

    @classmethod
    def load(cls, path: str | Path) -> PruningReport:
        with safe_open(str(path), framework="np") as file:
            rest = json.loads(file.metadata()["report"])
            bits = {name: file.get_tensor(name) for name in rest["table"]["name"]}
        table = pd.DataFrame(rest["table"])
        widths = zip(bits.items(), table["columns"])
        masks = {
            name: torch.from_numpy(np.unpackbits(x, axis=1, count=n).astype(bool))
            for (name, x), n in widths
        }
        return cls(**rest | {"masks": masks, "table": table})
