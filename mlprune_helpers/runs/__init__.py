"""Runs of notebooks: their parameters, cached results, numbers to keep, execution."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cache": ["cached"],
        "notebooks": ["NotebookFailed", "Run", "run_book", "run_notebook", "time_table"],
        "parameters": ["DOMAINS", "check_parameters"],
        "profiles": ["NotebookUnreadable"],
        "publishing": ["NotPublishable", "publish", "published"],
        "results": ["read_results", "save_results"],
    },
)
