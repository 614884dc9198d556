"""What a backbone's file says of itself, read without importing it."""

from creditflow.core import plugins

#: What the file of a backbone assigns if there are published weights: of torchvision, or of a Python package.
_PUBLISHED = ("TORCHVISION", "PACKAGED")


def has_published(backbone: str) -> bool:
    """Returns whether there are published weights for a backbone. Raises UserError if there is no such backbone."""
    plugins.check("backbone", backbone)
    return any(plugins.assigns("backbone", backbone, variable) for variable in _PUBLISHED)
