"""In how many layers the gradient through V lies below weight decay's term, for both scales of V.

    python benchmarks/below_decay.py [--networks resnet18 ...] [--images N] [--search-path FOLDER ...] [--page PAGE]

Each network is measured when its fine-tuning begins: with random weights, and with published ones where these can be
had, beside a fresh head for ten classes. The images are crops of the two photographs that scikit-learn brings; a crop's
label is its number. Weight decay is the sign-symmetry paper's, 5e-4. A cell tells the number of layers below, and the
smallest ratio of the two norms. With --page, the table goes into a page of docs/. A minute or two on one core, but for
AlexNet and VGG-16.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from _page import put_tables
from sklearn.datasets import load_sample_images

from creditflow.compute.torchvision_import import torchvision
from creditflow.core.backbones import has_published
from creditflow.core.errors import UserError, one_line
from creditflow.models.build import ModelSpec, build_model, replace_head
from creditflow.models.published import fetch_weights, import_state
from creditflow.training.decay import below_decay

RULES = {"bp": "BP", "usf": "uSF", "frsf": "frSF", "fa": "FA"}
WEIGHT_DECAY, CLASSES = 5e-4, 10

#: The project's backbones, and the shape of the images that they are measured with.
BACKBONES = {
    "mlp": (1, 28, 28),
    "lenet5": (1, 28, 28),
    "small_cnn": (1, 28, 28),
    "resnet18": (3, 224, 224),
    "alexnet": (3, 224, 224),
    "vgg16": (3, 224, 224),
    "efficientnet_lite0": (3, 224, 224),
}

#: Networks of torchvision with depthwise or grouped convolutions, which are no backbones.
OTHERS = ("mobilenet_v2", "efficientnet_b0", "resnext50_32x4d")

#: What a network is called in the table, and what makes it.
Made = tuple[str, Callable[[], nn.Module], tuple[int, int, int]]


def photographs(shape: tuple[int, int, int], n: int) -> Tensor:
    """Returns n crops (n, channels, height, width) of two photographs, in [0, 1]."""
    channels, height, width = shape
    pictures = [torch.from_numpy(image.copy()).permute(2, 0, 1) / 255 for image in load_sample_images().images]
    generator, crops = torch.Generator().manual_seed(0), []
    for index in range(n):
        picture = pictures[index % len(pictures)]
        top, left = (
            int(torch.randint(size - side + 1, (), generator=generator))
            for size, side in zip(picture.shape[1:], (height, width), strict=True)
        )
        crops.append(picture[:, top : top + height, left : left + width])
    images = torch.stack(crops)
    return images if channels == 3 else images.mean(1, keepdim=True)


def networks(names: list[str], search_paths: list[Path], folder: Path) -> Iterator[Made]:
    """Yields the networks; published weights that cannot be had are named on stderr."""
    for name in names:
        if name in OTHERS:
            yield f"{name}, random", lambda name=name: random_of_torchvision(name), (3, 224, 224)
            continue
        shape = BACKBONES[name]
        spec = ModelSpec(name, shape, CLASSES, (0.5,) * shape[0], (0.25,) * shape[0])
        yield f"{name}, random", lambda spec=spec: build_model(spec, "finetune", 0), shape
        if not has_published(name):
            continue
        file = folder / f"{name}.pth"
        try:
            fetch_weights(name, "IMAGENET1K_V1", search_paths, file)
        except UserError as error:
            print(f"{name}: no published weights ({one_line(error)})", file=sys.stderr)
            continue
        yield f"{name}, ImageNet", lambda name=name, file=file, shape=shape: published(name, file, shape[1]), shape


def random_of_torchvision(name: str) -> nn.Module:
    torch.manual_seed(0)
    return getattr(torchvision.models, name)(weights=None, num_classes=CLASSES)


def published(name: str, file: Path, size: int) -> nn.Module:
    return replace_head(import_state(name, file, "IMAGENET1K_V1", size), CLASSES, "finetune", 0)


def row(title: str, make: Callable[[], nn.Module], shape: tuple[int, int, int], n: int) -> dict[str, str]:
    """Measures a network under all rules and both scales; returns its row of the table."""
    images, labels, model = photographs(shape, n), torch.arange(n) % CLASSES, make()
    cells = {"network, weights": title}
    for rule, rule_title in RULES.items():
        for scale in ("sigma",) if rule == "bp" else ("sigma", "norm"):
            generator = torch.Generator().manual_seed(0)
            rows = below_decay(model, rule, images, labels, WEIGHT_DECAY, generator=generator, scale=scale)
            cells["layers"] = str(len(rows))
            least = min(each.ratio for each in rows)
            column = rule_title if rule == "bp" else f"{rule_title}, {scale}"
            cells[column] = f"{sum(each.is_below for each in rows)} ({least:.1g})"
    print(cells, flush=True)
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=[*BACKBONES, *OTHERS], default=[*BACKBONES, *OTHERS])
    parser.add_argument("--images", type=int, default=8, help="number of images")
    parser.add_argument(
        "--search-path",
        type=Path,
        action="append",
        default=[],
        help="folder with published weights; may be given often",
    )
    parser.add_argument("--page", type=Path, help="write the table between its marks in this page")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(*made, args.images) for made in networks(args.networks, args.search_path, Path(folder))]
    if args.page:
        put_tables(args.page, {"below_decay": rows})


if __name__ == "__main__":
    main()
