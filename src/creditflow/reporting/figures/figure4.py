"""Robust accuracy against epsilon, the size of the perturbation, for the backbone and the datasets that the note below
names (the form of the sign-symmetry paper's Figure 4). There is a row of panels for each attack. In the panels "exact
gradient" the attacker follows the derivative of what the network computes. In the panels "own feedback weights" it
follows the gradient through them, as a library does that implements a rule as a layer's backward pass. The networks are
the same in both. For BP the two gradients are equal."""

from creditflow.reporting.figures._white_box import white_box_figure

FIGURE = white_box_figure("figure4", "alexnet")
