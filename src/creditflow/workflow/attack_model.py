"""What an experiment may say of attacks, of what explains them, and of the audit."""

from typing import Annotated, Any, Literal

from pydantic import Field

from creditflow.attacks.epsilons import Epsilons
from creditflow.attacks.why_settings import WhySettings
from creditflow.core.parts import part_of
from creditflow.core.settings import Many
from creditflow.workflow.key_types import ONCE, GradientGroup, Gradients, Name, Names, Section, Seeds


class AttackStrength(Section):
    """How strong an attack is, and on how many images."""

    epsilons: Epsilons
    """Sizes of the perturbation in the attack's norm, for pixels in [0, 1]. They must rise."""
    images: int = Field(ge=1, le=100_000_000)
    """Number of test images that are attacked, the same ones for every model."""
    batch_size: int = Field(ge=1, le=10_000_000)
    """Number of images that are attacked at once."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the attack."""


_StrengthPart = part_of(AttackStrength)


class AttackKeys(AttackStrength):
    """How an attack is used. `datasets`, `backbones`, `rules`, `gradients` and `seeds` restrict it to some models."""

    datasets: Names | None = None
    """Datasets whose models are attacked; all if absent."""
    backbones: Names | None = None
    """Backbones, or variants of a population, that are attacked; all if absent."""
    rules: Names | None = None
    """Rules whose models are attacked, or names of given models; all if absent."""
    gradients: Gradients | None = None
    """Gradients that the attacker uses; all if absent. Backpropagation's `feedback` is its `exact` gradient and is
    left out."""
    seeds: Seeds | None = None
    """Seeds whose models are attacked; all if absent."""
    for_gradients: dict[GradientGroup, _StrengthPart] = Field(default_factory=dict)  # type: ignore[valid-type]
    """What differs for some gradients, by their names; `through` stands for all that run through fresh feedback
    weights."""
    keep: int = Field(0, ge=0, le=64)
    """Number of attacked images, the first ones, whose perturbed versions are kept beside the outcomes."""
    twin: Name | None = None
    """Of an attack that transfers images: the rule whose model of the same seed backpropagation is attacked from, or
    the given model that the reference is attacked from. If absent, it is `frsf`, or else the first other one."""


class Why(WhySettings):
    """Why attacks fail: where each attacker's gradient points, and where its steps lead (figure `why`)."""

    gradients: Gradients
    """Gradients that are measured; `exact` is one of them, as the others are compared with it."""
    rules: Names | None = None
    """Rules whose models are measured; all if absent."""
    seeds: Seeds | None = None
    """Seeds whose models are measured; all if absent."""


class Audit(Section):
    """Comparison of each rule with backpropagation, by the worst case over a set of attacks (docs/audit.md)."""

    epsilons: Annotated[Many[Annotated[float, Field(gt=0, le=10_000_000)]], Field(min_length=1), ONCE]
    """Sizes of the perturbation at which rules are compared. Each of the attacks has them."""
    attacks: Names
    """Attacks of one norm. An image counts as fooled if any of them fools it, with any gradient but those of
    `through:`."""
    claim: Name
    """The attack on which a claim of robustness rests: its run through the feedback weights, or through a given model's
    own gradient; else its run through the exact gradient."""
    margin: float = Field(5.0, ge=0, le=50)
    """Percentage points of accuracy, or of mAP. "No difference" is said only if the whole family interval of the
    difference lies within -margin and +margin."""
    datasets: Names | None = None
    """Datasets on which rules are compared; all if absent."""
    reference: Literal["bp", "matched"] = "bp"
    """The model that rules are compared with: backpropagation's, or (`matched`) backpropagation's, stopped where its
    clean accuracy is the rule's."""
