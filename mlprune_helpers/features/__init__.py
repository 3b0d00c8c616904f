"""What is large, where it differs, and whether that is more than chance.

A feature is one dimension of the residual stream at one layer.  Arrays of features have the shape
(n_layers + 1, hidden_size): layer ``l`` is what block ``l`` receives, the last one is what the last
block puts out.
"""

from .changes import relative_change, sign_flip_test
from .controls import matched_random_features, random_tracks
from .large import overlap, top_features
from .lens import logit_lens
from .shared import SharedFeatures, shared_features
from .specific import feature_stability, translation_specific_features
