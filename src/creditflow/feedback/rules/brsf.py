"""brSF: batchwise random-magnitude sign-concordant feedback (Liao et al., 2016): frSF with M redrawn as W changes.

M is drawn again after each parameter update, as the sign-symmetry paper defines it. It is not drawn again in each
forward pass: an evaluation or an attack would then meet other magnitudes in each pass.
"""

import torch
from torch import Tensor

from creditflow.feedback.draws import fill_uniform
from creditflow.feedback.rule import Rule, State, random_magnitude, sign_concordant, xavier_bound


def draw(weight: Tensor, generator: torch.Generator | None) -> State:
    """Draws the first M, and the seed from which all later ones follow."""
    state = random_magnitude(weight, generator)
    assert generator is not None
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return state | {"seed": seed.cpu(), "updates": torch.tensor(0)}


def redraw(weight: Tensor, state: State) -> State:
    """Draws the M that belongs to the next number of updates, into the memory of the M before."""
    updates = state["updates"] + 1
    fill_uniform(state["magnitude"], xavier_bound(weight), int(state["seed"]), int(updates))
    return state | {"updates": updates}


RULE = Rule(
    feedback_weight=sign_concordant,
    initial_state=draw,
    after_update=redraw,
    redraws=True,
    elementwise=True,
    title="brSF",
    order=40,
    color="#009E73",
    marker="D",
    transported_bits=1,
)
