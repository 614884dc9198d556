"""brSF: batchwise random-magnitude sign-concordant feedback (Liao et al., 2016): frSF with M redrawn as W changes.

M is drawn again after each parameter update, as the sign-symmetry paper defines it. It is not drawn again in each
forward pass: an evaluation or an attack would then meet other magnitudes in each pass.

With the scale `norm`, each M is multiplied so that V has the norm that W had at the start, which the state remembers.
"""

import torch
from torch import Tensor

from creditflow.feedback.draws import fill_uniform
from creditflow.feedback.rule import (
    SIGMA,
    Rule,
    Scale,
    State,
    random_magnitude,
    sign_concordant,
    with_norm,
    xavier_bound,
)


def draw(weight: Tensor, generator: torch.Generator | None, scale: Scale = SIGMA) -> State:
    """Draws the first M, and the seed from which all later ones follow."""
    state = random_magnitude(weight, generator, scale)
    assert generator is not None
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return state | {"seed": seed.cpu(), "updates": torch.tensor(0)} | scale.to_state()


def redraw(weight: Tensor, state: State) -> State:
    """Draws the M that belongs to the next number of updates, into the memory of the M before."""
    updates, scale = state["updates"] + 1, Scale.of_state(state)
    fill_uniform(state["magnitude"], xavier_bound(weight, scale.groups), int(state["seed"]), int(updates))
    with_norm(state["magnitude"], scale.norm, weight)
    return state | {"updates": updates}


RULE = Rule(
    feedback_weight=sign_concordant,
    initial_state=draw,
    after_update=redraw,
    scaled=True,
    redraws=True,
    elementwise=True,
    title="brSF",
    order=40,
    color="#009E73",
    marker="D",
    transported_bits=1,
)
