"""Training: pretraining and fine-tuning share one loop."""

from creditflow.runtime import Resume
from creditflow.training.accuracy import correct_predictions
from creditflow.training.loop import TrainingSettings, train

__all__ = ["Resume", "TrainingSettings", "correct_predictions", "train"]
