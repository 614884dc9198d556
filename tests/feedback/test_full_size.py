"""The paper's larger backbones at 224x224: training steps and an attack on random images of the right format.

The smaller one, ResNet-18, runs in tests/workflows/test_published_sign_symmetry.py.
"""

import pytest
import torch
from torch import nn

from creditflow import apply_rule
from creditflow.attacks.judge import choose_images, get_attack, run_attack
from creditflow.compute.randomness import Streams
from creditflow.core import plugins
from creditflow.data.prepared import Subset
from creditflow.data.settings import InputSettings
from creditflow.models.build import ModelSpec, build_model
from creditflow.training.loop import train
from creditflow.training.settings import TrainingSettings
from creditflow.training.task import TrainingData

pytestmark = pytest.mark.slow


def pictures(n: int, size: int = 224) -> Subset:
    """Noise of 32x32 pixels whose brightness tells the class; networks see it at 224x224, or at another size."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    images = torch.randint(0, 128, (n, 3, 32, 32), generator=generator) + 127 * labels[:, None, None, None]
    return Subset(images.to(torch.uint8), labels, ("dark", "bright"), (0.5,) * 3, (0.25,) * 3, InputSettings(size=size))


@pytest.mark.parametrize(("backbone", "n", "steps"), [("alexnet", 2, 4), ("vgg16", 1, 2)])
def test_few_steps_and_an_attack(backbone: str, n: int, steps: int) -> None:
    """A few steps on the same pictures lower the loss, and the rule's gradient reaches epsilon in one step of PGD.

    Nothing is dropped out, so that few steps are enough to see it. VGG16 computes for seconds with each picture. How
    good a network is at its test picture does not matter here, so that picture is small.
    """
    data = pictures(n)
    assert data.image_shape == (3, 224, 224)
    model = build_model(ModelSpec(backbone, data.image_shape, 2, data.mean, data.std), "test", 0)
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    settings = TrainingSettings(epochs=steps, batch_size=n, learning_rate=1e-4)
    state, history = train(model, "frsf", TrainingData(data, pictures(1, size=64)), settings, Streams("test", 0))
    losses = [row["loss"] for row in history]
    assert sum(losses[steps // 2 :]) < 0.85 * sum(losses[: steps // 2]), losses
    attack = get_attack("pgd")
    parameters = plugins.settings_class("attack", "pgd")(steps=1, relative_step=1.0)
    view = apply_rule(model, "frsf", state=state)
    result = run_attack(attack, parameters, view, data, choose_images(data, 1), [0.02], batch_size=1, seed=0)
    assert result.correct.shape == (1, 1)
    assert float(result.perturbation[0].max()) == pytest.approx(0.02, rel=1e-4)
