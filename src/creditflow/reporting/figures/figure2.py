"""Robust accuracy against epsilon under FGSM (top) and PGD (bottom). Left, for each dataset, the attacker's gradient is
exact: it runs through the forward weights. Right, it runs through the rule's own feedback weights, as it does where a
library computes it through the layers' own backward pass. For BP the two are the same. The models in both columns are
the same."""

from creditflow.reporting.figures._white_box import white_box_figure

FIGURE = white_box_figure("figure2", "resnet18", or_the_only_one=True)
