"""Models: description, construction, files."""

from creditflow.models.build import ImageClassifier, ModelSpec, build_model, replace_head
from creditflow.models.storage import feedback_path, load_feedback, load_model, read_sidecar, save_model, sidecar_path

__all__ = [
    "ImageClassifier",
    "ModelSpec",
    "build_model",
    "feedback_path",
    "load_feedback",
    "load_model",
    "read_sidecar",
    "replace_head",
    "save_model",
    "sidecar_path",
]
