"""Training: pretraining and fine-tuning share one loop."""

from creditflow.training.accuracy import correct_predictions
from creditflow.training.loop import Resume, TrainingSettings, train

__all__ = ["Resume", "TrainingSettings", "correct_predictions", "train"]
