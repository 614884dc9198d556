"""Settings of weight mirroring."""

from pydantic import Field

from creditflow.populations.rules.settings._feedback import FeedbackSettings


class Settings(FeedbackSettings):
    """The mirror steps, in which feedback matrices learn from noise."""

    noise: float = Field(0.1, gt=0, le=1_000)
    """Width of the uniform noise around zero that is sent into each layer; the authors' 0.1 is small against biases."""
    rate: float = Field(100.0, gt=0, le=1e9)
    """Learning rate of the feedback matrices, in units of the learning rate."""
    decay: float = Field(1.0, ge=0, le=1_000_000)
    """Decay of the feedback matrices B, in units of rate times noise variance. With 1, B comes to W in a linear layer.
    Below a ReLU it comes to about W / 2, because half of the noise is cut off."""
    initial_steps: int = Field(200, ge=0, le=10_000_000)
    """Number of mirror steps before training."""
