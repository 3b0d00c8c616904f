"""Helpers of the book "Pruning multilingual language models": the machinery behind its notebooks.

Public names are loaded when they are first used (``__init__.pyi`` lists them), so that what needs
no torch does not wait for it.
"""

import os

import lazy_loader

from .runs.environment import short_waits

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"

# Torch's threads read it when they start, so it has to stand before torch is imported.
os.environ.update(short_waits())
