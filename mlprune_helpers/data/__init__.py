"""Parallel sentences and tasks, from the built-in corpus, a folder or the hub."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "examples": ["checked_examples"],
        "languages": ["BOOK_LANGUAGES", "LANGUAGES", "DataError"],
        "reading": ["files_read"],
        "sources": ["check_source", "load_code", "load_parallel", "load_task"],
        "tasks": ["TASKS", "Task"],
    },
)
