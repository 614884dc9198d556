"""Settings of the cascade."""

from collections.abc import Iterator
from typing import Self

from pydantic import model_validator

from creditflow.attacks.methods.settings import apgd_ce as of_apgd_ce
from creditflow.attacks.methods.settings import apgd_dlr as of_apgd_dlr
from creditflow.attacks.methods.settings import apgd_scaled as of_apgd_scaled
from creditflow.attacks.methods.settings import apgd_targeted as of_apgd_targeted
from creditflow.attacks.methods.settings import fab as of_fab
from creditflow.attacks.methods.settings import pgd_smoothed as of_pgd_smoothed
from creditflow.attacks.methods.settings import square as of_square
from creditflow.attacks.methods.settings import transfer as of_transfer
from creditflow.core.settings import SettingsModel

#: Stages whose steps adapt, in the order in which one is chosen that shows whether the cascade has converged.
_ASCENTS = ("apgd_scaled", "apgd_dlr", "apgd_targeted", "apgd_ce")


class Settings(SettingsModel):
    """The stages that run, each with the settings of the attack of that name; `{}` are that attack's defaults.

    They run in the order of this list, each at the images that the stages before it have not fooled. `transfer` runs
    last if `transfer_last` says so.
    """

    transfer: of_transfer.Settings | None = None
    """PGD on each of the two surrogates; without this key no image is transferred."""
    apgd_scaled: of_apgd_scaled.Settings | None = None
    """APGD on the cross-entropy of logits that are brought to a fixed scale; without this key it does not run."""
    apgd_ce: of_apgd_ce.Settings | None = None
    """APGD on the cross-entropy; without this key it does not run."""
    apgd_dlr: of_apgd_dlr.Settings | None = None
    """APGD on the difference of logits ratio; without this key it does not run."""
    apgd_targeted: of_apgd_targeted.Settings | None = None
    """APGD on the targeted difference of logits ratio; without this key it does not run."""
    fab: of_fab.Settings | None = None
    """FAB; without this key it does not run."""
    pgd_smoothed: of_pgd_smoothed.Settings | None = None
    """PGD on a gradient that is averaged around each iterate; without this key it does not run."""
    square: of_square.Settings | None = None
    """The Square Attack, which needs no gradient; without this key it does not run."""
    transfer_last: bool = False
    """Whether `transfer` runs after all other stages instead of before them, at the few images that they left."""

    @model_validator(mode="after")
    def _has_a_stage(self) -> Self:
        stages = stage_names()
        if all(getattr(self, stage) is None for stage in stages):
            raise ValueError(f"name at least one stage of: {', '.join(stages)}")
        return self

    def without_effect(self) -> Iterator[tuple[str, str]]:
        """Yields the key that has no effect without a stage `transfer`."""
        if self.transfer is None:
            yield "transfer_last", "without transfer"

    def doubled(self) -> Self | None:
        """Returns a cascade of the one stage that shows convergence, with twice its steps; None if no stage can.

        It is the first stage that no scale of the logits can blind, else APGD on the cross-entropy.
        """
        for stage in _ASCENTS:
            if (chosen := getattr(self, stage)) is not None:
                alone = dict.fromkeys(stage_names())
                return self.model_copy(update=alone | {stage: chosen.doubled()})
        return None


def stage_names() -> tuple[str, ...]:
    """Returns the names of all stages, in the order in which they run by default."""
    return tuple(name for name in Settings.model_fields if name != "transfer_last")
