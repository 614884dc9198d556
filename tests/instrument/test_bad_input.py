"""Whatever is wrong with models, images or options is told in one line that says what to do."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import creditflow as cf
from creditflow.core.errors import UserError
from lies import Spiking

IMAGES, LABELS = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


class Net(nn.Module):
    """A linear classifier, and what a test does with its logits."""

    def __init__(self, n_outputs: int = 3, change: Any = None) -> None:
        super().__init__()
        self.layer = nn.Linear(16, n_outputs)
        self.change = change or (lambda logits: logits)

    def forward(self, x: Tensor) -> Any:
        return self.change(self.layer(x.flatten(1)))


def net(n_outputs: int = 3, change: Any = None) -> nn.Module:
    return Net(n_outputs, change).eval()


def with_value(value: float) -> Tensor:
    images = IMAGES.clone()
    images[2, 0, 1, 1] = value
    return images


class Words(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return ["an", "image"][index]


OPTIONS: dict[str, Any] = {"epsilons": [0.1], "budget": "quick", "progress": False}

#: What is given, and a part of the line that says what to do.
CASES: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "tuple": ((net(change=lambda z: (z, z)), IMAGES, LABELS), {}, "returns a tuple, not a tensor of logits: wrap it"),
    "probabilities": ((net(change=lambda z: z.softmax(1)), IMAGES, LABELS), {}, "remove its softmax"),
    "one output": ((net(1), IMAGES, LABELS * 0), {}, "has one output: give one for each class"),
    "shape of outputs": ((net(change=lambda z: z[:, :, None]), IMAGES, LABELS), {}, "logits have the shape"),
    "NaN outputs": ((net(change=lambda z: z * float("nan")), IMAGES, LABELS), {}, "outputs are not finite"),
    "sizes": ((net(), torch.rand(6, 1, 5, 5), LABELS), {}, r"fails at images of the shape \(1, 5, 5\)"),
    "label": ((net(), IMAGES, LABELS + 1), {}, "label 3 is out of range: model 'model' has 3 outputs"),
    "negative label": ((net(), IMAGES, LABELS - 1), {}, "label -1 is below 0"),
    "float labels": ((net(), IMAGES, LABELS.float()), {}, "labels must be whole numbers, not float32"),
    "too few labels": ((net(), IMAGES, LABELS[:4]), {}, "labels must be one class number for each of 6 images"),
    "no labels": ((net(), IMAGES), {}, "labels are missing"),
    "labels twice": ((net(), TensorDataset(IMAGES, LABELS), LABELS), {}, "leave labels out"),
    "not four dimensions": ((net(), IMAGES[:, 0], LABELS), {}, r"must have the shape \(N, C, H, W\)"),
    "bytes": ((net(), (IMAGES * 255).byte(), LABELS), {}, r"give images / 255, or say bounds=\(0, 255\)"),
    "outside": ((net(), with_value(1.2), LABELS), {}, "lie outside the bounds, 0 to 1"),
    "normalised": ((net(), IMAGES * 2 - 1, LABELS), {}, "lie outside the bounds"),
    "NaN image": ((net(), with_value(float("nan")), LABELS), {}, "NaN or infinite"),
    "no image": ((net(), IMAGES[:0], LABELS[:0]), {}, "there is no image to attack"),
    "empty dataset": ((net(), TensorDataset(IMAGES[:0], LABELS[:0])), {}, "the dataset is empty"),
    "no pairs": ((net(), Words()), {}, "must be a pair of image and label"),
    "state": ((nn.Sequential(Spiking(), net()).eval(), IMAGES, LABELS), {}, "fails at a batch of 6 images.* reset it"),
    "training": ((nn.Sequential(nn.Dropout(), net()), IMAGES, LABELS), {}, "is in training mode, and Dropout 0"),
    "device of tensors": ((net().to("meta"), IMAGES, LABELS), {"device": "cpu"}, "has tensors on meta, where cpu"),
    "device": ((net(), IMAGES, LABELS), {"device": "graphics"}, "is not a device"),
    "no model": (("resnet18", IMAGES, LABELS), {}, "models must be a torch.nn.Module, or a dict"),
    "no network": (({"mine": []}, IMAGES, LABELS), {}, "must be a torch.nn.Module, or a list of them"),
    "name": (({"a/b": net()}, IMAGES, LABELS), {}, "can't be the name of a model"),
    "no reference": (({"a": net(), "b": net()}, IMAGES, LABELS), {}, "Say reference=, one of: a, b"),
    "reference": (({"a": net(), "b": net()}, IMAGES, LABELS), {"reference": "bb"}, "did you mean 'b'"),
    "outputs differ": (({"a": net(), "reference": net(4)}, IMAGES, LABELS), {}, "different numbers of outputs"),
    "unsorted": ((net(), IMAGES, LABELS), {"epsilons": [0.2, 0.1]}, "epsilons must rise"),
    "no list": ((net(), IMAGES, LABELS), {"epsilons": 0.1}, r"epsilons must be a list, such as \[0.1\]"),
    "large": ((net(), IMAGES, LABELS), {"epsilons": [8]}, "larger than the range of pixels, 0 to 1; say 8/255"),
    "budget": ((net(), IMAGES, LABELS), {"budget": "quik"}, "unknown budget 'quik'; did you mean 'quick'"),
    "gradient": ((net(), IMAGES, LABELS), {"gradients": ["exakt"]}, "did you mean 'exact'"),
    "norm": ((net(), IMAGES, LABELS), {"norm": "l2"}, "use 'linf'"),
    "bounds": ((net(), IMAGES, LABELS), {"bounds": (1, 0)}, "a lower and a higher number"),
    "mean": ((net(), IMAGES, LABELS), {"preprocessing": {"mean": [0, 0], "std": [1]}}, "mean must be 1 numbers"),
    "std": ((net(), IMAGES, LABELS), {"preprocessing": {"mean": [0], "std": [0]}}, "std must be above 0"),
    "keys": ((net(), IMAGES, LABELS), {"preprocessing": {"means": [0]}}, "must be a function of images, or"),
    "batch": ((net(), IMAGES, LABELS), {"batch_size": 0}, "batch_size must be a whole number of at least 1"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_one_line(case: str) -> None:
    given, options, expected = CASES[case]
    with pytest.raises(UserError, match=expected) as caught:
        cf.audit(*given, **OPTIONS | options)
    assert "\n" not in str(caught.value)
