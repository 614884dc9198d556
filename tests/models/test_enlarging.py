"""Images that a network enlarges itself: what it computes, its gradients, and what is refused."""

from pathlib import Path

import pytest
import torch

from creditflow import apply_rule, load_model, save_model
from creditflow.core.errors import UserError
from creditflow.models.build import Enlarge, ImageClassifier, ModelSpec, build_model, replace_head

SPEC = ModelSpec("small_cnn", (1, 8, 8), 3, (0.3, 0.4, 0.5), (0.2, 0.3, 0.4), inner_shape=(3, 16, 16))


def model() -> ImageClassifier:
    return build_model(SPEC, "test", 0).eval()


def test_images_are_enlarged_bilinearly_and_a_grey_channel_is_repeated() -> None:
    image = torch.tensor([[0.0, 1.0], [0.4, 0.2]]).view(1, 1, 2, 2)
    # New pixel centres lie at -1/4, 1/4, 3/4 and 5/4 of the old ones; what lies outside is the border itself.
    along = torch.tensor([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    expected = along @ image[0, 0] @ along.T
    torch.testing.assert_close(Enlarge((1, 2, 2), (3, 4, 4))(image), expected.expand(1, 3, 4, 4))


def test_the_gradient_is_that_of_the_image_before_it_is_enlarged() -> None:
    enlarge = Enlarge((1, 3, 4), (3, 7, 9))
    images = torch.rand(2, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(enlarge, images)
    network = model().double()
    small = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(small).square().sum(), small)
    direction, step = torch.randn(small.shape, dtype=torch.float64), 1e-6
    with torch.no_grad():
        ahead, behind = (network(small + sign * step * direction).square().sum() for sign in (1, -1))
    torch.testing.assert_close((gradient * direction).sum(), (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-8)


def test_the_model_computes_what_it_does_on_enlarged_images() -> None:
    network = model()
    images = torch.rand(4, 1, 8, 8)
    large = torch.nn.functional.interpolate(images, size=(16, 16), mode="bilinear").expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (SPEC.mean, SPEC.std))
    torch.testing.assert_close(network(images), network.head(network.backbone((large - mean) / std)))
    view = apply_rule(network, "frsf", generator=torch.Generator().manual_seed(0))
    assert torch.equal(view(images), network(images))


def test_such_a_model_is_saved_and_loaded(tmp_path: Path) -> None:
    assert ModelSpec.from_json(SPEC.to_json()) == SPEC
    network, images = model(), torch.rand(2, 1, 8, 8)
    save_model(tmp_path / "m.safetensors", network)
    again = load_model(tmp_path / "m.safetensors")
    assert isinstance(again, ImageClassifier) and again.spec == SPEC
    assert torch.equal(again(images), network(images))


def test_a_model_of_large_images_is_given_small_ones() -> None:
    large = build_model(ModelSpec("small_cnn", (3, 16, 16), 7, SPEC.mean, SPEC.std), "test", 0)
    small = replace_head(large, 3, "finetune", 0, enlarges=(1, 8, 8))
    assert small.spec == SPEC
    assert all(torch.equal(a, b) for a, b in zip(small.backbone.parameters(), large.backbone.parameters(), strict=True))
    # The head follows from its seed alone, whether images are enlarged or not.
    assert torch.equal(small.head.weight, replace_head(large, 3, "finetune", 0).head.weight)


def test_what_cannot_be_enlarged_is_refused() -> None:
    for shape, words in (((1, 17, 8), "16x16 is smaller than the images of 17x8"), ((2, 8, 8), "the images have 2")):
        with pytest.raises(UserError, match=words):
            Enlarge(shape, (3, 16, 16))
