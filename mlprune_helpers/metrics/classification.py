"""How many predictions are right."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .checks import as_indices, as_texts, check_as_many, check_whole_number, has_names


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Share of predictions that equal the label.

    Args:
        predictions: (n,) indices of labels, or their names.
        labels: (n,) of the same kind, in the same order.

    Returns:
        A share from 0 to 1.

    Raises:
        TypeError: One of them is no list.
        ValueError: They are empty, differ in length, or hold anything but whole numbers from 0 (or
            names in both).
    """
    if has_names(predictions, "predictions") or has_names(labels, "labels"):
        predicted = np.array(as_texts(predictions, "predictions"), dtype=object)
        right = np.array(as_texts(labels, "labels"), dtype=object)
    else:
        predicted, right = as_indices(predictions, "predictions"), as_indices(labels, "labels")
    check_as_many(predictions=predicted, labels=right)
    return float(np.mean(predicted == right))


def macro_f1(predictions: ArrayLike, labels: ArrayLike, n_labels: int) -> float:
    """Mean over all labels of F1, 2 TP / (2 TP + FP + FN).

    Args:
        predictions: (n,) indices of labels.
        labels: (n,) the same, in the same order.
        n_labels: How many labels there are; one that is neither predicted nor present counts as 0.

    Returns:
        A figure from 0 to 1.

    Raises:
        TypeError: One of them is no list.
        ValueError: They are empty, differ in length, or hold anything but whole numbers from 0 to
            ``n_labels - 1``.
    """
    check_whole_number(n_labels, "n_labels", at_least=1)
    predicted = as_indices(predictions, "predictions", n_labels)
    right = as_indices(labels, "labels", n_labels)
    check_as_many(predictions=predicted, labels=right)
    hits = np.bincount(right[predicted == right], minlength=n_labels)
    n_predicted = np.bincount(predicted, minlength=n_labels)
    n_present = np.bincount(right, minlength=n_labels)
    return float(np.mean(2 * hits / np.maximum(n_predicted + n_present, 1)))
