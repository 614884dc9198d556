"""A fixed part of the training images."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from creditflow.compute.randomness import Streams
from creditflow.core.errors import UserError
from creditflow.data.dataset import ImageFiles
from creditflow.data.prepared import Subset
from creditflow.models.build import ModelSpec, build_model
from creditflow.training.loop import train
from creditflow.training.part import training_part
from creditflow.training.settings import TrainingSettings
from creditflow.training.task import TrainingData


def subset(labels: torch.Tensor) -> Subset:
    """Images that carry their number in their pixels."""
    numbers = torch.arange(len(labels))
    images = torch.stack([numbers % 251, numbers // 251], 1).to(torch.uint8)[:, None, None].repeat(1, 1, 8, 4)
    names = tuple(str(index) for index in range(labels.shape[1] if labels.dim() == 2 else int(labels.max()) + 1))
    return Subset(images, labels, names, (0.5,), (0.5,))


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.floats(0.1, 1))
def test_each_class_keeps_its_share_up_to_one_image(counts: list[int], share: float) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    n_images = max(len(counts), round(share * len(labels)))
    data = subset(labels)
    part = training_part(data, n_images)
    assert len(part.labels) == len(part.images) == n_images
    kept = part.labels.bincount(minlength=len(counts))
    assert (kept - torch.tensor(counts) * n_images / len(labels)).abs().max() < 1
    numbers = part.images[:, 0, 0, 0].long() + 251 * part.images[:, 0, 0, 1].long()
    assert torch.equal(part.labels, labels[numbers]) and bool((numbers.diff() > 0).all())
    assert torch.equal(part.images, training_part(data, n_images).images)


def test_all_images_are_the_subset_itself() -> None:
    data = subset(torch.tensor([0, 1, 0, 1]))
    assert training_part(data, None) is data and training_part(data, 4) is data


def test_images_of_several_labels_and_files_have_parts_too() -> None:
    labels = torch.tensor([[1, 0], [0, 1], [1, 1]] * 10, dtype=torch.uint8)
    assert len(training_part(subset(labels), 7).labels) == 7
    files = ImageFiles(Path("photos"), [f"{number}.png" for number in range(30)])
    one_label = torch.arange(30) % 3
    part = training_part(Subset(files, one_label, ("a", "b", "c"), (0.5,) * 3, (0.5,) * 3), 9)
    assert isinstance(part.images, ImageFiles)
    assert [int(name.removesuffix(".png")) % 3 for name in part.images.names] == part.labels.tolist()


@pytest.mark.parametrize(
    ("n_images", "message"),
    [(5, "train_images is 5, but there are 4 training images"), (1, "train_images is 1, but there are 2 classes")],
)
def test_too_many_and_too_few_are_refused(n_images: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        training_part(subset(torch.tensor([0, 1, 0, 1])), n_images)


def test_training_uses_the_part_alone() -> None:
    """Training with the setting is training on the part, to the last bit; and it is another one than on all images."""
    data = subset(torch.arange(40) % 2)
    settings = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2}

    def trained(images: Subset, **changes: int) -> list[dict[str, float]]:
        model = build_model(ModelSpec("mlp", (1, 8, 8), 2, (0.5,), (0.5,)), "test", 0)
        return train(model, "bp", TrainingData(images, data), TrainingSettings(**settings | changes), Streams("t", 0))[
            1
        ]

    assert trained(data, train_images=12) == trained(training_part(data, 12))
    assert trained(data, train_images=12) != trained(data)
