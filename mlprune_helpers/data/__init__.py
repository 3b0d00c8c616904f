"""Parallel sentences and tasks, from the built-in corpus, a folder or the hub."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "languages": ["BOOK_LANGUAGES", "LANGUAGES", "DataError"],
        "sources": ["load_code", "load_parallel", "load_task"],
        "tasks": ["TASKS", "Task"],
    },
)
