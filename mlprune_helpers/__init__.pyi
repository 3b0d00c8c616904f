# The public names, and the rooms they come from.  Read by lazy_loader at import, and by type checkers.

from . import plots as plots
from .activations import (
    ActivationStats as ActivationStats,
)
from .activations import (
    collect_activations as collect_activations,
)
from .batching import (
    encode as encode,
)
from .comparison import (
    compare as compare,
)
from .comparison import (
    summarise as summarise,
)
from .data.languages import (
    BOOK_LANGUAGES as BOOK_LANGUAGES,
)
from .data.languages import (
    LANGUAGES as LANGUAGES,
)
from .data.languages import (
    DataError as DataError,
)
from .data.sources import (
    load_code as load_code,
)
from .data.sources import (
    load_parallel as load_parallel,
)
from .data.sources import (
    load_task as load_task,
)
from .data.tasks import (
    TASKS as TASKS,
)
from .data.tasks import (
    Task as Task,
)
from .evaluation import (
    Evaluation as Evaluation,
)
from .evaluation import (
    evaluate as evaluate,
)
from .features import (
    feature_stability as feature_stability,
)
from .features import (
    logit_lens as logit_lens,
)
from .features import (
    matched_random_features as matched_random_features,
)
from .features import (
    overlap as overlap,
)
from .features import (
    relative_change as relative_change,
)
from .features import (
    sign_flip_test as sign_flip_test,
)
from .features import (
    top_features as top_features,
)
from .features import (
    translation_specific_features as translation_specific_features,
)
from .files import (
    cache_dir as cache_dir,
)
from .interventions import (
    language_vector as language_vector,
)
from .interventions import (
    lrp2 as lrp2,
)
from .interventions import (
    zero_features as zero_features,
)
from .metrics import (
    Comparison as Comparison,
)
from .metrics import (
    accuracy as accuracy,
)
from .metrics import (
    batch_calibrated as batch_calibrated,
)
from .metrics import (
    bootstrap_interval as bootstrap_interval,
)
from .metrics import (
    compare_translations as compare_translations,
)
from .metrics import (
    contextual_calibrated as contextual_calibrated,
)
from .metrics import (
    degenerate_outputs as degenerate_outputs,
)
from .metrics import (
    holm as holm,
)
from .metrics import (
    macro_f1 as macro_f1,
)
from .metrics import (
    paired_bootstrap as paired_bootstrap,
)
from .metrics import (
    rank_consistency as rank_consistency,
)
from .metrics import (
    rank_consistency_chance as rank_consistency_chance,
)
from .metrics import (
    rank_consistency_least_likely_first as rank_consistency_least_likely_first,
)
from .metrics import (
    translation_quality as translation_quality,
)
from .models.architecture import (
    ModelError as ModelError,
)
from .models.architecture import (
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
)
from .prompts import (
    task_prompts as task_prompts,
)
from .prompts import (
    translation_prompt as translation_prompt,
)
from .pruning.checkpoint import (
    save_pruned as save_pruned,
)
from .pruning.masks import (
    global_masks as global_masks,
)
from .pruning.masks import (
    nm_mask as nm_mask,
)
from .pruning.masks import (
    unstructured_mask as unstructured_mask,
)
from .pruning.prune import (
    apply_masks as apply_masks,
)
from .pruning.prune import (
    prune as prune,
)
from .pruning.prune import (
    pruned as pruned,
)
from .pruning.report import (
    PruningReport as PruningReport,
)
from .pruning.scores import (
    METHODS as METHODS,
)
from .pruning.scores import (
    magnitude_score as magnitude_score,
)
from .pruning.scores import (
    random_score as random_score,
)
from .pruning.scores import (
    refined_norm as refined_norm,
)
from .pruning.scores import (
    ria_score as ria_score,
)
from .pruning.scores import (
    wanda_score as wanda_score,
)
from .pruning.sparsegpt import (
    sparsegpt as sparsegpt,
)
from .runs.cache import (
    cached as cached,
)
from .runs.parameters import (
    check_parameters as check_parameters,
)
from .runs.results import (
    save_results as save_results,
)
from .scoring import (
    Scored as Scored,
)
from .scoring import (
    score_choices as score_choices,
)
from .translation import (
    right_language as right_language,
)
from .translation import (
    self_translate as self_translate,
)
from .translation import (
    translate as translate,
)

__version__: str
