"""Helpers of the book "Pruning multilingual language models": the machinery behind its notebooks."""

from . import plots
from .activations import ActivationStats, collect_activations
from .data import BOOK_LANGUAGES, LANGUAGES, TASKS, DataError, Task, load_code, load_parallel, load_task
from .evaluation import (
    Evaluation, compare, evaluate, language_vector, lrp2, right_language, self_translate, summarise,
    translate,
)
from .features import (
    feature_stability, logit_lens, matched_random_features, overlap, relative_change, sign_flip_test,
    top_features, translation_specific_features, zero_features,
)
from .metrics import (
    Comparison, accuracy, batch_calibrated, bootstrap_interval, compare_translations, contextual_calibrated,
    degenerate_outputs, holm, macro_f1, paired_bootstrap, rank_consistency, rank_consistency_chance,
    rank_consistency_least_likely_first, translation_quality,
)
from .models import LanguageModel, ModelError, cache_dir, load_model, weight_matrix
from .prompts import build_demonstrations, encode, task_prompts, translation_prompt
from .pruning import (
    PruningReport, apply_masks, global_masks, magnitude_score, nm_mask, prune, pruned, random_score,
    refined_norm, ria_score, save_pruned, sparsegpt, unstructured_mask, wanda_score,
)
from .runs import cached, check_parameters, save_results
from .scoring import Scored, score_choices

__version__ = "0.1.0"
