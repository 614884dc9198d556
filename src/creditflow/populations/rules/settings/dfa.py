"""Settings of direct feedback alignment."""

from creditflow.populations.rules.settings._feedback import FeedbackSettings


class Settings(FeedbackSettings):
    """The fixed feedback matrices."""
