"""Settings of Kolen and Pollack's rule."""

from creditflow.populations.rules.settings._feedback import FeedbackSettings


class Settings(FeedbackSettings):
    """The feedback matrices, which take the steps of the forward ones."""
