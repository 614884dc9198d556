"""DTP (pre-trained): DTP whose feedback learns alone before training and after each epoch (Meulemans et al., 2020).

The rule is DTP's; what differs are the settings `feedback_epochs` and `extra_feedback_epochs`. It has an id of its own so that both stand
side by side in an experiment.
"""

from dataclasses import replace

from creditflow.populations.rules import dtp

RULE = replace(dtp.RULE, name="DTP (pre-trained)", connected=("uu", "dd"), plastic=("uu", "dd"))
