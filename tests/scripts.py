"""Scripts that belong to no package, as modules that tests can call, and the locks."""

import importlib.util
import re
from types import ModuleType

from helpers import ROOT

LOCKS = ("requirements.txt", "requirements-source.txt", "requirements-torch.txt", "requirements-dev.txt")


def module_from(path: str) -> ModuleType:
    """Returns the script at this path of the project as a module, without running its `main`."""
    name = path.removesuffix(".py").replace("/", "_")
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entries(name: str) -> list[str]:
    """The entries of a lock: a requirement and its hashes each."""
    text = (ROOT / "envs" / name).read_text(encoding="utf-8")
    return re.findall(r"^[^#\s].*(?:\n .*)*", text, re.MULTILINE)
