"""Numbers from arrays: accuracy, calibration, ranks, intervals, p-values, translation quality.

Every function checks what it is given.  A missing value compares as False and a text is a sequence
of its characters, so that both would give a number, and a wrong one; here they are refused, by
their place.
"""

from .calibration import batch_calibrated, contextual_calibrated
from .classification import accuracy, macro_f1
from .difference import Comparison
from .intervals import bootstrap_interval
from .p_values import coin_chance, holm, p_told, place_among, smallest_p_value
from .paired import paired_bootstrap
from .ranks import (
    rank_consistency,
    rank_consistency_chance,
    rank_consistency_least_likely_first,
)
from .translation_scores import (
    TOKENIZERS,
    compare_translations,
    degenerate_outputs,
    translation_quality,
)

__all__ = [
    "TOKENIZERS",
    "Comparison",
    "accuracy",
    "batch_calibrated",
    "bootstrap_interval",
    "coin_chance",
    "compare_translations",
    "contextual_calibrated",
    "degenerate_outputs",
    "holm",
    "macro_f1",
    "p_told",
    "paired_bootstrap",
    "place_among",
    "rank_consistency",
    "rank_consistency_chance",
    "rank_consistency_least_likely_first",
    "smallest_p_value",
    "translation_quality",
]
