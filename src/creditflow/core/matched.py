"""Names of networks that backpropagation trains only until their clean accuracy is that of another rule's network.

A rule that learns less well may seem more robust only because its network is less accurate. The network
`bp_matched_<rule>` settles this: it has the rule's start, data, settings and seed, is trained by backpropagation, and
stops as soon as its clean accuracy is at least that of the rule's network. This file imports nothing heavy.
"""

_PREFIX = "bp_matched_"


def matched_name(rule: str) -> str:
    """Returns the name of the network of backpropagation that is as accurate as the rule's."""
    return f"{_PREFIX}{rule}"


def matched_to(name: str) -> str | None:
    """Returns the rule whose accuracy a network of this name has; None for the name of a rule."""
    return name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else None


def trained_by(name: str) -> str:
    """Returns the id of the rule that trains a network of this name."""
    return name if matched_to(name) is None else "bp"
