"""Settings of the null-space measurement."""

from typing import Any, Self

from pydantic import Field, model_validator

from creditflow.core.settings import SettingsModel


class NullspaceSettings(SettingsModel):
    """How a rule is trained and measured on the toy regression.

    Feedback first learns alone for `feedback_epochs`. Then `epochs` epochs are measured, and after each of them
    feedback learns alone for `extra_feedback_epochs` more.
    """

    rule: dict[str, Any] = Field(default_factory=dict)
    """Settings of the update rule; see the rule's file."""
    feedback_learning_rate: float = Field(0.01, gt=0, le=100)
    """Learning rate of the SGD that trains feedback. Rules whose feedback does not learn ignore it."""
    feedback_weight_decay: float = Field(0.0, ge=0, le=100)
    """Factor of that SGD's L2 term."""
    examples: int = Field(400, ge=1, le=10_000_000)
    """Number of examples in an epoch."""
    feedback_epochs: int = Field(30, ge=0, le=1_000_000)
    """Epochs before anything is measured."""
    epochs: int = Field(5, ge=1, le=1_000_000)
    """Epochs in which updates are measured."""
    extra_feedback_epochs: int = Field(1, ge=0, le=1_000_000)
    """Epochs without measurement after each measured one."""
    every: int = Field(10, ge=1, le=10_000_000)
    """In a measured epoch, every so many steps an update is measured."""

    @model_validator(mode="after")
    def _measures_something(self) -> Self:
        if self.every > self.examples:
            raise ValueError(f"every is {self.every}, more than the {self.examples} examples of an epoch; lower every")
        return self
