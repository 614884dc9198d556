"""Plugins of other distributions, which a container image has only if the lock names their distribution.

The image lets nothing of the host's Python in. So a job in a container would not find such a plugin.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.gradients import parse_gradient
from creditflow.workflow.consistency import named_plugins

#: The locked requirements that the image is built of.
_LOCKS = ("requirements.txt", "requirements-source.txt", "requirements-torch.txt")
_PIN = re.compile(r"^([\w.-]+)==", re.MULTILINE)


def check_plugins(keys: Mapping[str, Any], name: str, locks: Path) -> None:
    """Raises UserError if an experiment uses a plugin that the image does not have.

    Args:
        keys: the experiment's keys.
        name: its name, for the message.
        locks: the folder of the locked requirements.
    """
    for kind, plugin in _used(keys):
        outside = plugins.outside(kind, plugin)
        if outside is not None and _normal(outside.distribution) not in _locked(locks):
            raise UserError(
                f"experiment {name}: the {kind.replace('_', ' ')} {plugin!r} comes from the distribution"
                f" {outside.distribution}, which the container image does not have; copy its file into"
                f" src/creditflow/{plugins.ROOMS[kind]}/ of the clone, or run without --use-apptainer"
            )


def _used(keys: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields kind and id of the plugins that an experiment names."""
    for kind, names in named_plugins(keys).values():
        yield from ((kind, name) for name in names)
    for gradient in chain(keys["gradients"], keys.get("why", {}).get("gradients", [])):
        if rule := parse_gradient(gradient).rule:
            yield "rule", rule


def _locked(folder: Path) -> set[str]:
    """Returns the names of all distributions in the image."""
    texts = [(folder / name).read_text(encoding="utf-8") for name in _LOCKS]
    return {_normal(name) for text in texts for name in _PIN.findall(text)}


def _normal(name: str) -> str:
    """Returns the name of a distribution as PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()
