"""WM: weight mirroring (Akrout et al., 2019): after each update of W, V learns W from noise sent through the layer.

A mirror step draws noise x of zero mean and unit variance as the input of the layer and lets the layer answer y = W x.
The expectation of y x^T is W, and V moves towards it: V <- (1 - rho) V + rho y x^T, with a mean over a few x. The
authors answer with the activation that follows the layer, y = f(W x + b). A rule for single layers does not know this
activation; the linear answer has the same expectation but for a factor. The kernel of a convolution is mirrored as a
matrix, which answers one patch of noise at a time.
"""

import math

import torch
from torch import Tensor

from creditflow.feedback.draws import fill_uniform
from creditflow.feedback.rule import SIGMA, Rule, Scale, State, remembered_weight, xavier_uniform

#: rho, and the number of noise samples in a mirror step. V remembers about SAMPLES / RATE samples.
RATE, SAMPLES = 0.02, 32


def draw(weight: Tensor, generator: torch.Generator | None, scale: Scale = SIGMA) -> State:
    """Draws the first V, as FA does, and the seed from which all noise follows."""
    first = xavier_uniform(weight, generator, scale)
    assert generator is not None
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return {"feedback_weight": first, "seed": seed.cpu(), "updates": torch.tensor(0)}


def mirror(weight: Tensor, state: State) -> State:
    """Takes the mirror step that belongs to the next number of updates."""
    updates = state["updates"] + 1
    matrix = weight.flatten(1)
    noise = torch.empty(SAMPLES, matrix.shape[1], device=weight.device)
    fill_uniform(noise, 1.0, int(state["seed"]), int(updates))
    noise = noise.sub_(0.5).mul_(math.sqrt(12.0)).to(weight.dtype)
    answer = noise @ matrix.t()
    moved = state["feedback_weight"].flatten(1).mul(1 - RATE).addmm_(answer.t(), noise, alpha=RATE / SAMPLES)
    return {
        "feedback_weight": torch.empty_like(weight).copy_(moved.view(weight.shape)),
        "seed": state["seed"],
        "updates": updates,
    }


RULE = Rule(
    feedback_weight=remembered_weight,
    initial_state=draw,
    after_update=mirror,
    scaled=True,
    title="WM",
    order=70,
    color="#0072B2",
    marker="<",
    transported_bits=0,
)
