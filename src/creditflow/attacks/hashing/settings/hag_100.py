"""Settings of HAG with 100 iterations."""

from pydantic import Field

from creditflow.attacks.hashing.settings import hag


class Settings(hag.Settings):
    """Those of HAG; only the number of iterations begins at another value."""

    iterations: int = Field(100, ge=1, le=1_000_000)
    """Number of steps."""
