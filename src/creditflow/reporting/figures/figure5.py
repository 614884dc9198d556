"""VGG-16: robust accuracy against epsilon under FGSM (top) and PGD (bottom), for each dataset and attacker's gradient.
The exact gradient runs through the forward weights, the other through the rule's own feedback weights, as it does where
a library computes it through the layers' own backward pass. For BP the two are the same. The models under both are the
same."""

from creditflow.reporting.figures._white_box import white_box_figure

FIGURE = white_box_figure("figure5", "vgg16")
