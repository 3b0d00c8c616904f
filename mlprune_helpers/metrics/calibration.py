"""Scores of choices, freed from how much a model likes each choice anyway."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax, logsumexp

from .checks import as_numbers, as_rows_of_choices


def batch_calibrated(log_likelihoods: ArrayLike) -> np.ndarray:
    """Log p(choice | row) - log mean p(choice): batch calibration (Zhou et al., arXiv 2309.17249).

    It assumes that the labels of the batch are balanced.

    Args:
        log_likelihoods: (n, n_choices) sums over tokens, in nats.

    Returns:
        (n, n_choices) calibrated scores, higher = likelier.

    Raises:
        ValueError: The shape is another, or a value is missing or not finite.
    """
    log_p = log_softmax(as_rows_of_choices(log_likelihoods, "log_likelihoods"), axis=1)
    return log_p - (logsumexp(log_p, axis=0) - np.log(len(log_p)))


def contextual_calibrated(log_likelihoods: ArrayLike, content_free: ArrayLike) -> np.ndarray:
    """Log p(choice | row) - log p(choice | no content): contextual calibration.

    Source: Zhao et al., arXiv 2102.09690.

    Args:
        log_likelihoods: (n, n_choices) sums over tokens, in nats.
        content_free: (m, n or 1, n_choices) the same for m questions without content, whose
            probabilities are averaged.

    Returns:
        (n, n_choices) calibrated scores, higher = likelier.

    Raises:
        ValueError: A shape is another, or a value is missing or not finite.
    """
    log_p = log_softmax(as_rows_of_choices(log_likelihoods, "log_likelihoods"), axis=1)
    n, n_choices = log_p.shape
    without = as_numbers(content_free, "content_free")
    if without.shape[1:] not in ((n, n_choices), (1, n_choices)) or not len(without):
        raise ValueError(
            f"content_free has the shape {without.shape}; for log-likelihoods of the shape "
            f"{log_p.shape} it is (inputs, {n} or 1, {n_choices}), at least one input."
        )
    prior = logsumexp(log_softmax(without, axis=-1), axis=0) - np.log(len(without))
    return log_p - prior
