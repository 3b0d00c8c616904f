"""Runs of notebooks: their parameters, cached results, numbers to keep, execution."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cache": ["cached"],
        "notebooks": ["NotebookFailed", "run_book", "run_notebook", "time_table"],
        "parameters": ["check_parameters"],
        "results": ["save_results"],
    },
)
