"""DTP (pre-trained): DTP whose feedback learns alone before training and after each epoch (Meulemans et al., 2020).

The rule is DTP's; what differs are the settings `feedback_epochs` and `extra_feedback_epochs`. It has an id of its own so that both stand
side by side in an experiment.
"""

from creditflow.populations.rule import UpdateRule
from creditflow.populations.rules._targets import Settings, needed_noise
from creditflow.populations.rules.dtp import feedback_step, init, step

RULE = UpdateRule(
    name="DTP (pre-trained)",
    settings=Settings,
    init=init,
    step=step,
    feedback_step=feedback_step,
    noise=needed_noise,
    noisy_step=True,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
