"""Imports torchvision, also beside a torch that was built without CUDA.

The wheel of torchvision on PyPI is built for CUDA. Beside a CPU build of torch its compiled operators do not load. The
statement `import torchvision` then fails, because torchvision describes two operators that do not exist. It is enough
to declare their schemas, as nothing here calls these operators. If the import works, this module changes nothing.
"""

import sys

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: torch.library.Library | None = None


def _declare_missing_operators() -> None:
    global _library  # the operators vanish when this object does
    _library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _library.define(name + _SCHEMA)


def _forget_half_import() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


try:
    import torchvision
except RuntimeError as error:
    if "torchvision::nms does not exist" not in str(error):
        raise
    _forget_half_import()
    _declare_missing_operators()
    import torchvision

__all__ = ["torchvision"]
