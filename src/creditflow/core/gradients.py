"""Names of the gradients that an attacker may use, and their folders in paths. It imports nothing heavy.

- `exact`: the derivative of what the network computes.
- `own`: whatever the backward pass of somebody else's model gives, which need not be the derivative.
- `feedback`: through the feedback weights that the network was trained with.
- `through:<rule>` and `through:<rule>:<draw>`: through fresh feedback weights of a rule, which the network never
  trained with. Draws are independent of each other; the first one has no number.
- `surrogate:twin` and `surrogate:other_seed`: no gradient of the network; the images are made on a surrogate.
- `none`: no gradient at all.
"""

import re
from dataclasses import dataclass
from typing import Literal

from creditflow.core.errors import UserError, suggestion

Kind = Literal["exact", "own", "feedback", "through", "surrogate", "none"]

#: Names of the models that images are transferred from (see `Experiment.surrogates`).
SURROGATES = ("twin", "other_seed")

_THROUGH = re.compile(r"through:(?P<rule>[a-z0-9]+(?:_[a-z0-9]+)*)(?::(?P<draw>[2-9]|[1-9][0-9]{1,5}))?")


@dataclass(frozen=True)
class Gradient:
    """What an attacker differentiates.

    Attributes:
        kind: the kind of gradient.
        rule: id of the rule whose fresh feedback weights the gradient runs through; empty for other kinds.
        draw: number of the draw of these feedback weights, from 1.
        surrogate: name of the model that the images are made on; empty for other kinds.
    """

    kind: Kind
    rule: str = ""
    draw: int = 1
    surrogate: str = ""

    def __str__(self) -> str:
        """Returns the name of the gradient, which `parse_gradient` reads."""
        if self.kind == "through":
            return f"through:{self.rule}" if self.draw == 1 else f"through:{self.rule}:{self.draw}"
        return f"surrogate:{self.surrogate}" if self.kind == "surrogate" else self.kind


#: The gradients that name no rule, by their names.
_FIXED = {
    str(gradient): gradient
    for gradient in (
        Gradient("exact"),
        Gradient("own"),
        Gradient("feedback"),
        Gradient("none"),
        *(Gradient("surrogate", surrogate=name) for name in SURROGATES),
    )
}

#: What messages propose.
_KNOWN = ("exact", "own", "feedback", "through:<rule>", "through:<rule>:<draw>")


def parse_gradient(text: str) -> Gradient:
    """Reads the name of a gradient. Whether a rule of that name exists is not checked.

    Raises UserError if it is no such name.
    """
    if text in _FIXED:
        return _FIXED[text]
    if match := _THROUGH.fullmatch(text):
        return Gradient("through", match["rule"], int(match["draw"] or 1))
    if re.fullmatch(r"through:[a-z0-9_]+:0*1", text):
        raise UserError(f"{text!r} is the first draw, which has no number: write {text.rpartition(':')[0]!r}")
    raise UserError(f"unknown gradient {text!r}{suggestion(text, _KNOWN)}")


def folder_of(gradient: str) -> str:
    """Returns the folder of a gradient in paths, such as `through-frsf-2` for `through:frsf:2`."""
    return gradient.replace(":", "-")


def of_folder(folder: str) -> str:
    """Returns the gradient whose folder this is; `folder_of` backwards, as no id of a rule has a dash."""
    return folder.replace("-", ":")
