"""creditflow: learning rules that send the error back in another way than backpropagation, and what
robustness they really buy.

The names below are the public interface; they are loaded on first use so that the workflow can read its
configuration without paying for `import torch`.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from creditflow.core.environment import clean_stage

clean_stage(Path(__file__).resolve().parents[1])

__version__ = "2.0.0"

_HOME_OF = {
    "AuditResult": "creditflow.instrument.result",
    "GradientReport": "creditflow.derivatives.report",
    "apply_rule": "creditflow.feedback.apply",
    "audit": "creditflow.instrument.audit",
    "check_gradient": "creditflow.derivatives.check",
    "exact_gradients": "creditflow.derivatives.exact",
    "feedback_state": "creditflow.feedback.apply",
    "load_feedback": "creditflow.models.storage",
    "load_model": "creditflow.models.storage",
    "save_model": "creditflow.models.storage",
}

__all__ = [
    "AuditResult",
    "GradientReport",
    "__version__",
    "apply_rule",
    "audit",
    "check_gradient",
    "exact_gradients",
    "feedback_state",
    "load_feedback",
    "load_model",
    "save_model",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'creditflow' has no attribute {name!r}")
