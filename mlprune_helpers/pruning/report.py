"""What pruning did, and how it is kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from ..files import written_beside
from .masks import checked_mask


@dataclass(eq=False)
class PruningReport:
    """What :func:`prune` did.

    Attributes:
        method: Its name in ``METHODS``.
        sparsity: What was asked: a share, or "n:m".
        masks: {prunable name: bool (out_features, in_features)}, True = pruned; on the CPU.
        table: A row a matrix: "name", "rows", "columns", "weights" (their number), the shares
            "asked" and "pruned", and "zero_before", the share of weights that were zero before.
        settings: All settings; of the texts a hash; None where a setting had no say.
        fingerprint_before: Of the model.
        fingerprint_after: Of the model.
        seconds: How long it took.
    """

    method: str
    sparsity: float | str
    masks: dict[str, Tensor] = field(repr=False)
    table: pd.DataFrame = field(repr=False)
    settings: dict[str, Any]
    fingerprint_before: str
    fingerprint_after: str
    seconds: float

    @property
    def pruned_fraction(self) -> float:
        """Share of all prunable weights that the masks prune."""
        number = self.table["pruned"] * self.table["weights"]
        return float(number.sum() / self.table["weights"].sum())

    def provenance(self) -> dict[str, Any]:
        """Everything but masks and table, ready for JSON."""
        return {
            "method": self.method,
            "sparsity": self.sparsity,
            "pruned_fraction": self.pruned_fraction,
            "fingerprint_before": self.fingerprint_before,
            "fingerprint_after": self.fingerprint_after,
            **self.settings,
            "seconds": round(self.seconds, 2),
        }

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, complete or not at all.

        It holds the masks, eight weights in a byte, and all the rest as JSON.
        """
        _check_names(self.masks, self.table)
        bits = {}
        for name, rows, columns in self.table[["name", "rows", "columns"]].itertuples(index=False):
            bits[name] = _packed(checked_mask(name, self.masks[name], torch.Size((rows, columns))))
        rest = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        rest = {**rest, "masks": None, "table": self.table.to_dict("list")}
        with written_beside(path) as beside:
            save_file(bits, beside, {"report": json.dumps(rest)})

    @classmethod
    def load(cls, path: str | Path) -> PruningReport:
        """Read a file that :meth:`save` wrote.

        Raises:
            ValueError: If the file is damaged, or holds something else.
        """
        try:
            with safe_open(str(path), framework="np") as file:
                rest = json.loads((file.metadata() or {})["report"])
                bits = {name: file.get_tensor(name) for name in file.keys()}
            table = pd.DataFrame(rest["table"])
            masks = _unpacked_all(bits, table)
            return cls(**{**rest, "masks": masks, "table": table})
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} holds no whole pruning report ({type(error).__name__}: {error}). Write it "
                "anew with report.save."
            ) from error


def _check_names(masks: Mapping[str, Any], table: pd.DataFrame) -> None:
    """Refuse masks of other matrices than the table has."""
    odd = sorted(masks.keys() ^ set(table["name"]))
    if odd:
        raise ValueError(f"masks and table name different matrices, the first is {odd[0]!r}")


def _packed(mask: Tensor) -> np.ndarray:
    """A mask (out, in) as bytes (out, ceil(in / 8)).

    In C order: safetensors writes an array's memory as it lies, whatever the order of its places.
    """
    return np.ascontiguousarray(np.packbits(mask.cpu().numpy(), axis=1))


def _unpacked_all(bits: Mapping[str, np.ndarray], table: pd.DataFrame) -> dict[str, Tensor]:
    """{name: mask}, of exactly the matrices in the table, in its order."""
    _check_names(bits, table)
    masks = {}
    for name, rows, columns in table[["name", "rows", "columns"]].itertuples(index=False):
        masks[name] = _unpacked(name, bits[name], rows, columns)
    return masks


def _unpacked(name: str, bits: np.ndarray, rows: int, columns: int) -> Tensor:
    """The inverse of :func:`_packed`."""
    if bits.dtype != np.uint8 or bits.shape != (rows, -(-columns // 8)):
        raise ValueError(f"the mask of {name} is {bits.dtype} {bits.shape}")
    return torch.from_numpy(np.unpackbits(bits, axis=1, count=columns).astype(bool))
