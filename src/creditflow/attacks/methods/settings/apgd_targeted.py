"""Settings of APGD on the targeted difference of logits ratio."""

from pydantic import Field

from creditflow.attacks.methods.settings import apgd_ce


class Settings(apgd_ce.Settings):
    """Those of APGD, for each target class, and the number of targets. The defaults are AutoAttack's."""

    targets: int = Field(9, ge=1, le=100_000)
    """How many of the likeliest other classes are targets; all other classes if there are fewer."""
