"""Networks and images for the tests on a GPU (tests/gpu). They need the library's own dependencies only."""

from functools import cache

import torch
from torch import Tensor, nn

from creditflow.data.prepared import Subset
from creditflow.models.build import ImageClassifier, ModelSpec, build_model

N_CLASSES, SIDE = 4, 12


def subset(n: int = 48, seed: int = 0) -> Subset:
    """Noisy images (n, 1, 12, 12) whose brightest corner tells which of four classes they are of."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % N_CLASSES
    images = torch.randint(0, 120, (n, 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    half = SIDE // 2
    for index, label in enumerate(labels.tolist()):
        row, column = divmod(label, 2)
        images[index, 0, row * half : (row + 1) * half, column * half : (column + 1) * half] += 100
    return Subset(images, labels, tuple("abcd"), (0.3,), (0.2,))


def small_model(seed: int = 0) -> ImageClassifier:
    spec = ModelSpec("small_cnn", (1, SIDE, SIDE), N_CLASSES, (0.3,), (0.2,))
    return build_model(spec, "test", seed)


class Mixed(nn.Module):
    """Convolutions with a stride, groups and dilation, batch normalisation, pooling, and Linear layers for positions.

    Images are (N, 4, 12, 12), outputs (N, 4).
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),
            nn.BatchNorm2d(8),
            nn.Softplus(),
            nn.Conv2d(8, 8, 3, dilation=2, padding=2, bias=False),
            nn.Tanh(),
            nn.AvgPool2d(2),
        )
        self.tokens, self.head = nn.Linear(8, 16), nn.Linear(16, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layers(x).flatten(2).transpose(1, 2)  # (N, positions, channels)
        outputs: Tensor = self.head(torch.tanh(self.tokens(maps)).mean(1))
        return outputs


def mixed(dtype: torch.dtype = torch.float32) -> Mixed:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Mixed().to(dtype)


@cache
def _trained_weights() -> dict[str, Tensor]:
    model, data = small_model(), subset(300, seed=1)
    images, labels = data.batch(torch.arange(300))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.state_dict()


def trained_model() -> ImageClassifier:
    """A network that classifies `subset` and can be fooled."""
    model = small_model()
    model.load_state_dict(_trained_weights())
    return model.eval()


def assert_same_bits(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(ours[name].cpu(), value.cpu()), name


def assert_near(ours: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Compares tensors by the norm of their difference, relative to the norm of the expected one.

    A hundredth of the largest norm counts, too: what would be zero without rounding, such as the gradient of a bias
    before batch normalisation, is nothing but rounding.
    """
    assert ours.keys() == expected.keys()
    wanted = {name: value.cpu().double() for name, value in expected.items()}
    largest = max((float(value.norm()) for value in wanted.values()), default=0.0)
    for name, value in wanted.items():
        difference = float((ours[name].cpu().double() - value).norm())
        assert difference <= tolerance * (float(value.norm()) + 0.01 * largest), f"{name}: {difference:.2g}"
