"""Random features, matched or not: what an ablation or a scaling is compared with."""

from __future__ import annotations

import numpy as np

from .checks import check_count, checked_mask, checked_numbers, is_whole, log_size


def matched_random_features(
    features: np.ndarray,
    norms: np.ndarray,
    *,
    exclude: np.ndarray | None = None,
    seed: int = 0,
    nearest: int = 10,
    tracks: bool = True,
) -> np.ndarray:
    """Random other features of similar size, dimension for dimension: an ablation's control.

    A track is a dimension together with the layers at which it is chosen.  It is replaced by a
    dimension that is chosen nowhere, at exactly these layers, and of similar size there: one of the
    ``nearest`` free ones by the mean of absolute log ratios of norms over these layers.  So as many
    dimensions are hit, for as many layers, as many features at each layer, and what is lost without
    them is lost without features *of that size and extent*.  One draw is one control: take ten or
    more seeds, and see where the features in question stand among them.

    Args:
        features: Bool (n_layers + 1, hidden_size), the features to be matched.
        norms: Sizes of all features, of the same shape.
        exclude: Bool, of the same shape: never drawn, such as massive activations.  With tracks, a
            dimension that is excluded at one layer is drawn at none.
        seed: Of the draw.
        nearest: Among how many of similar size a dimension is drawn.
        tracks: False: every layer is drawn by itself.  That hits more dimensions, each for fewer
            layers, and takes more from the model than tracks do: no fair control of features that
            last over layers.

    Returns:
        Bool array of the same shape; as many features at each layer, none of them in ``features``.

    Raises:
        ValueError: If a shape or type differs, a norm is NaN or negative, or too few are free.
    """
    chosen = checked_mask("features", features)
    if chosen.ndim != 2:
        raise ValueError(
            f"features are {chosen.shape}; allowed: a bool array (n_layers + 1, hidden_size)."
        )
    sizes = checked_numbers("norms", norms)
    banned = np.zeros_like(chosen) if exclude is None else checked_mask("exclude", exclude)
    for name, array in {"norms": sizes, "exclude": banned}.items():
        if array.shape != chosen.shape:
            raise ValueError(
                f"{name} are {array.shape} and features {chosen.shape}; the same shape is needed."
            )
    if (sizes < 0).any():
        raise ValueError("norms are negative somewhere; allowed: sizes, such as stats.rms.")
    check_count("nearest", nearest)
    draw = _matched_tracks if tracks else _matched_by_layer
    return draw(chosen, log_size(sizes), banned, np.random.default_rng(seed), nearest)


def _matched_by_layer(
    chosen: np.ndarray,
    log_size: np.ndarray,
    banned: np.ndarray,
    rng: np.random.Generator,
    nearest: int,
) -> np.ndarray:
    drawn = np.zeros_like(chosen)
    taken = chosen | banned
    for layer, row in enumerate(chosen):
        if row.sum() > (~taken[layer]).sum():
            raise ValueError(
                f"{row.sum()} of {row.size} features at layer {layer}: too few others to match. "
                "Choose fewer."
            )
        for feature in rng.permutation(np.flatnonzero(row)):
            others = np.flatnonzero(~taken[layer] & ~drawn[layer])
            distance = np.abs(log_size[layer, others] - log_size[layer, feature])
            drawn[layer, _one_of_the_nearest(others, distance, rng, nearest)] = True
    return drawn


def _matched_tracks(
    chosen: np.ndarray,
    log_size: np.ndarray,
    banned: np.ndarray,
    rng: np.random.Generator,
    nearest: int,
) -> np.ndarray:
    drawn = np.zeros_like(chosen)
    dimensions = np.flatnonzero(chosen.any(axis=0))
    free = ~chosen.any(axis=0) & ~banned.any(axis=0)
    if len(dimensions) > free.sum():
        raise ValueError(
            f"{len(dimensions)} of {free.size} dimensions are chosen, and {free.sum()} others are "
            "not excluded: too few others to match. Choose or exclude fewer, or pass tracks=False."
        )
    for dimension in rng.permutation(dimensions):
        layers = np.flatnonzero(chosen[:, dimension])
        others = np.flatnonzero(free & ~drawn.any(axis=0))
        there, own = log_size[np.ix_(layers, others)], log_size[layers, dimension]
        distance = np.abs(there - own[:, np.newaxis]).mean(axis=0)
        drawn[layers, _one_of_the_nearest(others, distance, rng, nearest)] = True
    return drawn


def _one_of_the_nearest(
    candidates: np.ndarray, distance: np.ndarray, rng: np.random.Generator, nearest: int
) -> int:
    order = np.argsort(distance, kind="stable")
    return int(candidates[rng.choice(order[:nearest])])


def random_tracks(
    shape: tuple[int, int],
    n_dimensions: int,
    *,
    exclude: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Random whole dimensions, at all layers: a placebo that knows nothing of any language.

    Args:
        shape: (n_layers + 1, hidden_size), such as ``stats.rms.shape``.
        n_dimensions: How many.
        exclude: Bool array of this shape.  A dimension that is excluded at one layer is not drawn.
        seed: Of the draw.

    Returns:
        Bool array of this shape.

    Raises:
        ValueError: If the shape is another, or so many dimensions are not free.

    Example:
        ``with scale_features(lm, random_tracks(stats.rms.shape, 32), 1.02): evaluate(lm, ...)``
    """
    if len(shape) != 2 or not all(is_whole(n) and n > 0 for n in shape):
        raise ValueError(f"shape is {shape!r}; allowed: (n_layers + 1, hidden_size).")
    drawn = np.zeros(shape, dtype=bool)
    banned = np.zeros_like(drawn) if exclude is None else checked_mask("exclude", exclude)
    if banned.shape != drawn.shape:
        raise ValueError(f"exclude is {banned.shape}; allowed: the same as shape, {drawn.shape}.")
    free = np.flatnonzero(~banned.any(axis=0))
    check_count("n_dimensions", n_dimensions, most=len(free))
    drawn[:, np.random.default_rng(seed).choice(free, n_dimensions, replace=False)] = True
    return drawn
