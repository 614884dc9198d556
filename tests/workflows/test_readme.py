"""The README's example runs as it stands."""

import re

import torch

from helpers import ROOT


def test_the_librarys_example() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    torch.manual_seed(0)
    exec(code, names)
    model, view = names["model"], names["view"]
    assert isinstance(model, torch.nn.Module) and isinstance(view, torch.nn.Module)
    assert next(model.parameters()) is next(view.parameters())
    gradient = model.get_parameter("fc.weight").grad
    assert gradient is not None and bool(gradient.any())
