# The public names, and the rooms they come from.  Read by lazy_loader at import, and by type
# checkers.

from . import plots as plots
from .activations import (
    ActivationStats as ActivationStats,
    collect_activations as collect_activations,
)
from .arms import (
    ARM_DESCRIPTIONS as ARM_DESCRIPTIONS,
    arm_settings as arm_settings,
)
from .batching import (
    encode as encode,
)
from .chapters import (
    Chapter as Chapter,
    open_chapter as open_chapter,
)
from .comparison import (
    StackedUnits as StackedUnits,
    compare as compare,
    comparison_from as comparison_from,
    stacked_units as stacked_units,
    summarise as summarise,
)
from .data.examples import checked_examples as checked_examples
from .data.languages import (
    BOOK_LANGUAGES as BOOK_LANGUAGES,
    LANGUAGES as LANGUAGES,
    DataError as DataError,
)
from .data.sources import (
    load_code as load_code,
    load_parallel as load_parallel,
    load_task as load_task,
)
from .data.tasks import (
    TASKS as TASKS,
    Task as Task,
)
from .evaluation import (
    Evaluation as Evaluation,
    evaluate as evaluate,
)
from .features import (
    SharedFeatures as SharedFeatures,
    feature_stability as feature_stability,
    logit_lens as logit_lens,
    matched_random_features as matched_random_features,
    overlap as overlap,
    random_tracks as random_tracks,
    relative_change as relative_change,
    shared_features as shared_features,
    sign_flip_test as sign_flip_test,
    top_features as top_features,
    translation_specific_features as translation_specific_features,
)
from .files import (
    cache_dir as cache_dir,
)
from .interventions import (
    language_vector as language_vector,
    lrp2 as lrp2,
    scale_features as scale_features,
    zero_features as zero_features,
)
from .metrics import (
    Comparison as Comparison,
    accuracy as accuracy,
    batch_calibrated as batch_calibrated,
    bootstrap_interval as bootstrap_interval,
    coin_chance as coin_chance,
    compare_translations as compare_translations,
    contextual_calibrated as contextual_calibrated,
    degenerate_outputs as degenerate_outputs,
    holm as holm,
    macro_f1 as macro_f1,
    p_told as p_told,
    paired_bootstrap as paired_bootstrap,
    place_among as place_among,
    rank_consistency as rank_consistency,
    rank_consistency_chance as rank_consistency_chance,
    rank_consistency_least_likely_first as rank_consistency_least_likely_first,
    smallest_p_value as smallest_p_value,
    translation_quality as translation_quality,
)
from .models.architecture import (
    ModelError as ModelError,
    weight_matrix as weight_matrix,
)
from .models.language_model import (
    LanguageModel as LanguageModel,
)
from .models.loading import (
    load_model as load_model,
)
from .prompts import (
    build_demonstrations as build_demonstrations,
    prompt_units as prompt_units,
    task_prompts as task_prompts,
    translation_prompt as translation_prompt,
)
from .pruning.agreement import (
    mask_agreement as mask_agreement,
    zero_weights as zero_weights,
)
from .pruning.checkpoint import (
    save_pruned as save_pruned,
)
from .pruning.masks import (
    global_masks as global_masks,
    nm_mask as nm_mask,
    unstructured_mask as unstructured_mask,
)
from .pruning.methods import (
    METHODS as METHODS,
    Method as Method,
)
from .pruning.prune import (
    apply_masks as apply_masks,
    prune as prune,
    pruned as pruned,
)
from .pruning.report import (
    PruningReport as PruningReport,
)
from .pruning.scores import (
    magnitude_score as magnitude_score,
    random_score as random_score,
    refined_norm as refined_norm,
    ria_score as ria_score,
    wanda_score as wanda_score,
)
from .pruning.sparsegpt import (
    sparsegpt as sparsegpt,
)
from .pruning.statistics import STATISTICS as STATISTICS
from .ranking import (
    RANKING_CHANCE as RANKING_CHANCE,
    RankingUnits as RankingUnits,
)
from .runs.cache import (
    cached as cached,
)
from .runs.parameters import (
    check_parameters as check_parameters,
)
from .runs.results import (
    read_results as read_results,
    save_results as save_results,
)
from .scoring import (
    Scored as Scored,
    score_choices as score_choices,
)
from .tables import (
    Table as Table,
    show_table as show_table,
)
from .translation import (
    right_language as right_language,
    self_translate as self_translate,
    translate as translate,
)
from .translation_evaluation import (
    TRANSLATES_AT as TRANSLATES_AT,
    TranslationEvaluation as TranslationEvaluation,
    evaluate_translation as evaluate_translation,
    from_the_source as from_the_source,
)
from .verdicts import (
    Verdict as Verdict,
    counted as counted,
    judged as judged,
    listed as listed,
    verdict_table as verdict_table,
)

__version__: str
