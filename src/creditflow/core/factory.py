"""Names of models in text, such as `my_module.py:make_model`: what they say, checked without importing anything."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from creditflow.core.errors import UserError
from creditflow.core.files import as_path

#: What a text can name: a function in a file or in a module, a network of torchvision, or a file with a whole model.
Kind = Literal["file", "module", "torchvision", "torchscript", "exported", "saved"]

#: Endings of files that hold a whole model.
_WHOLE_MODELS: dict[str, Kind] = {
    ".pt": "torchscript",
    ".pth": "torchscript",
    ".ts": "torchscript",
    ".torchscript": "torchscript",
    ".pt2": "exported",
    ".safetensors": "saved",
}

_FORMS = (
    "file.py:function, package.module:function, torchvision:resnet18, a TorchScript file (.pt), a torch.export file"
    " (.pt2), or a model that creditflow saved (.safetensors)"
)


@dataclass(frozen=True)
class ModelSource:
    """What the text that names a model says.

    Attributes:
        text: the text itself, for messages.
        kind: what it names; see `Kind`.
        place: the file, the module or the name of torchvision's function.
        function: the function in the file or module; empty for other kinds.
        n_classes: number of outputs of a network of torchvision, if the text says it.
        weights: name of torchvision's published weights, if the text says it.
    """

    text: str
    kind: Kind
    place: str
    function: str = ""
    n_classes: int | None = None
    weights: str | None = None

    def file(self, base: Path) -> Path | None:
        """Returns the file that the text names, which may be relative to `base`; None if it names no file."""
        return None if self.kind in ("module", "torchvision") else base / as_path(self.place)


def parse_source(text: str) -> ModelSource:
    """Reads the text that names a model.

    It is one of these:
        `file.py:function`: a function (or a class) in a Python file that returns the network;
        `package.module:function`: the same in a module that Python can import;
        `torchvision:resnet18`: a network of torchvision. `torchvision:resnet18:10` has ten outputs, and
            `torchvision:resnet18@DEFAULT` has the published weights of that name;
        `model.pt`: a TorchScript file;
        `model.pt2`: a file of torch.export;
        `model.safetensors`: a model that `save_model` wrote.

    Raises UserError for any other text.
    """
    place, colon, name = text.strip().rpartition(":")
    if text.strip().startswith("torchvision:"):
        return _torchvision(text)
    if colon and place.endswith(".py") and name.isidentifier():
        return ModelSource(text, "file", place, name)
    if colon and name.isidentifier() and all(part.isidentifier() for part in place.split(".")):
        return ModelSource(text, "module", place, name)
    kind = _WHOLE_MODELS.get(Path(text.strip()).suffix.lower())
    if kind is not None:
        return ModelSource(text, kind, text.strip())
    if text.strip().endswith(".py"):
        raise UserError(f"{text!r} names a file, but no function in it; write {text.strip()}:function")
    raise UserError(f"{text!r} names no model; write {_FORMS}")


_TORCHVISION = re.compile(r"torchvision:(?P<place>\w+)(?::(?P<n_classes>[1-9]\d{0,5})|@(?P<weights>\w+))?")


def _torchvision(text: str) -> ModelSource:
    """Reads `torchvision:name`, `torchvision:name:classes` or `torchvision:name@weights`."""
    parts = _TORCHVISION.fullmatch(text.strip())
    if parts is None:
        raise UserError(
            f"{text!r} names no network of torchvision; write torchvision:resnet18, torchvision:resnet18:10"
            " for ten classes, or torchvision:resnet18@DEFAULT for published weights"
        )
    n_classes = int(parts["n_classes"]) if parts["n_classes"] else None
    return ModelSource(text, "torchvision", parts["place"], n_classes=n_classes, weights=parts["weights"])
