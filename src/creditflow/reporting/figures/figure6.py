"""AlexNet, retrieval: mean average precision against epsilon under attacks on hash codes, for each dataset and
attacker's gradient (the form of the sign-symmetry paper's Figure 6). The exact gradient runs through the forward
weights, the other through the rule's own feedback weights. For BP the two are the same. PGD on the code is our
reference: what a stronger attack reaches."""

from creditflow.reporting.figures._white_box import PRECISION, white_box_figure

FIGURE = white_box_figure("figure6", "alexnet", curves=PRECISION)
