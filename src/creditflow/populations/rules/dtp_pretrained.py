"""DTP (pre-trained): DTP whose feedback learns alone before training and after each epoch (Meulemans et al., 2020).

The rule is the same as DTP; what differs are the settings `feedback_epochs` and `extra_feedback_epochs` of the
population. It has its own id, so that an experiment can have both.
"""

from dataclasses import replace

from creditflow.populations.rules import dtp

RULE = replace(
    dtp.RULE,
    title="DTP (pre-trained)",
    order=130,
    color="#56B4E9",
    marker="X",
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
