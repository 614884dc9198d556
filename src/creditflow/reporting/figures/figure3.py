"""Mean average precision (mAP) of a retrieval against the size of the perturbation (epsilon). The figure has the form
of the sign-symmetry paper's Figure 3. The note below names the backbone and the datasets. There is a row of panels for
each attack on hash codes. In the panels "exact gradient" the attacker follows the derivative of what the network
computes. In the panels "own feedback weights" it follows the gradient through them. The networks are the same in
both. For BP the two gradients are equal. PGD on the code is no attack of the paper: it shows what a stronger attack
reaches.
"""

from creditflow.reporting.figures._white_box import PRECISION, white_box_figure

FIGURE = white_box_figure("figure3", "vgg16", or_the_only_one=True, curves=PRECISION)
