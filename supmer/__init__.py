"""SUPMER: self-supervised meta-prompt learning with meta-gradient regularization, at scale.

The names below are imported when they are first used, so that `import supmer` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supmer.config import Config
    from supmer.config.load import load_config
    from supmer.errors import UserError
    from supmer.predict.predictor import Predictions, Predictor

__version__ = "0.1.0"

__all__ = ["Config", "Predictions", "Predictor", "UserError", "__version__", "load_config"]

_MODULES = {
    "Config": "supmer.config",
    "Predictions": "supmer.predict.predictor",
    "Predictor": "supmer.predict.predictor",
    "UserError": "supmer.errors",
    "load_config": "supmer.config.load",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
