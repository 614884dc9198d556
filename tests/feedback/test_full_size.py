"""The paper's backbones at 224x224: training steps and an attack on random images of the right format."""

import pytest
import torch

from creditflow import apply_rule
from creditflow.attacks.judge import choose_images, get_attack, run_attack
from creditflow.data.inputs import InputSettings
from creditflow.data.prepared import Subset
from creditflow.models.build import ModelSpec, build_model
from creditflow.training.loop import TrainingSettings, train

pytestmark = pytest.mark.slow


def pictures(n: int) -> Subset:
    """Noise of 32x32 pixels whose brightness tells the class; networks see it at 224x224."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    images = torch.randint(0, 128, (n, 3, 32, 32), generator=generator) + 127 * labels[:, None, None, None]
    return Subset(images.to(torch.uint8), labels, ("dark", "bright"), (0.5,) * 3, (0.25,) * 3, InputSettings(224))


@pytest.mark.parametrize(("backbone", "rate"), [("resnet18", 1e-4), ("alexnet", 1e-4), ("vgg16", 1e-4)])
def test_ten_steps_and_an_attack(backbone: str, rate: float) -> None:
    torch.set_num_threads(2)
    data = pictures(4)
    assert data.image_shape == (3, 224, 224)
    model = build_model(ModelSpec(backbone, data.image_shape, 2, data.mean, data.std), "test", 0)
    settings = TrainingSettings(epochs=10, batch_size=4, learning_rate=rate)
    state, history = train(model, "frsf", data, data, settings, seed=0, stream="test")
    losses = [row["loss"] for row in history]
    assert sum(losses[-3:]) < 0.85 * sum(losses[:3]), losses
    attack = get_attack("pgd")
    for view in (model, apply_rule(model, "frsf", state=state)):
        result = run_attack(
            attack, attack.settings(), view, data, choose_images(data, 2), [0.0, 0.02], batch_size=2, seed=0
        )
        assert result.correct.shape == (2, 2)
        assert float(result.perturbation[1].max()) == pytest.approx(0.02, rel=1e-4)
    torch.set_num_threads(1)
