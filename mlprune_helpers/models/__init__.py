"""Load a causal language model and name its parts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "architecture": ["ModelError", "weight_matrix"],
        "language_model": ["LanguageModel"],
        "loading": ["load_model", "save_checkpoint"],
    },
)
