"""Weights from a file of the user's as the start of fine-tuning: of a backbone of the project, or of any network."""

from pathlib import Path

import torch
from torch import Tensor, nn

from creditflow.compute import randomness
from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.core.factory import parse_source
from creditflow.models.build import ImageClassifier, ModelSpec, build_model
from creditflow.models.factories import make_model
from creditflow.models.fitting import check_outputs_of
from creditflow.models.torchvision_models import load_into
from creditflow.models.weights import put_weights, state_of

#: Of the two images on which a network is compared with its parts: by how much outputs may differ, relatively.
_TOLERANCE = 1e-4


def last_linear(network: nn.Module, what: str) -> tuple[str, nn.Linear]:
    """Returns name and module of a network's last Linear, in the order in which its parts were assigned.

    Raises UserError, which begins with `what`, if it has none, or is nothing but this Linear.
    """
    layers = [(name, layer) for name, layer in network.named_modules() if type(layer) is nn.Linear and name]
    if not layers:
        raise UserError(f"{what}: its network has no Linear inside it that a new head could take the place of")
    return layers[-1]


def factory_hash(factory: str) -> str | None:
    """Returns the SHA-256 of the file of a factory; None if it lies in a module or in torchvision.

    Raises UserError if the text names no factory, or a file that is not there.
    """
    place = parse_source(factory).file(Path.cwd())
    if place is None:
        return None
    if not place.is_file():
        raise UserError(f"{factory}: there is no file {place}; name an existing one")
    return files.file_sha256(place)


def import_network(factory: str, path: Path, shape: tuple[int, int, int]) -> ImageClassifier:
    """Returns the network that a factory makes, with its weights, as a model whose head can be replaced.

    Args:
        factory: what makes the network; it takes pixels in [0, 1].
        path: the file of its weights; see `weights.load_weights`.
        shape: (channels, height, width) of the images that it takes.

    Raises:
        UserError: the network cannot be made, the weights do not fit it, it does not take such images, or its last
            Linear does not give its outputs.
    """
    network = make_model(factory, weights=path)
    name, last = last_linear(network, factory)
    channels = shape[0]
    options = {"factory": factory, "factory_sha256": factory_hash(factory)}
    spec = ModelSpec("from_factory", shape, last.out_features, (0.0,) * channels, (1.0,) * channels, options)
    model = build_model(spec, "import").eval()
    state = network.state_dict()
    body = {key: tensor for key, tensor in state.items() if not key.startswith(f"{name}.")}
    load_into(model.backbone, body, f"{path}: the weights")
    model.head = nn.Linear(last.in_features, last.out_features, bias=last.bias is not None)
    model.head.load_state_dict(last.state_dict())
    _compare(network, model, shape, factory)
    return _with_bias(model).eval()


def _with_bias(model: ImageClassifier) -> ImageClassifier:
    """Returns the model with a head that has a bias, zero if it had none: all models of the project have one."""
    if "bias" not in model.head.state_dict():
        weight = model.head.weight
        model.head = nn.Linear(model.head.in_features, model.head.out_features)
        model.head.load_state_dict({"weight": weight, "bias": torch.zeros(len(weight))})
    return model


@torch.no_grad()
def _compare(network: nn.Module, model: ImageClassifier, shape: tuple[int, int, int], factory: str) -> None:
    """Raises UserError unless the model computes what the network computes."""
    images = torch.rand(2, *shape, generator=randomness.generator("import", "images"))
    check_outputs_of(network, images, model.spec.n_classes, factory)
    network.eval()
    wanted, given = network(images), model(images)
    if given.shape != wanted.shape or not torch.allclose(given, wanted, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise UserError(
            f"{factory}: its last Linear does not give the outputs, so that no new head can take its place;"
            " have the network end with a Linear"
        )


def import_own(backbone: str, path: Path, size: int) -> ImageClassifier:
    """Returns one of the project's networks with the weights in a file that `save_model` or a stage wrote.

    Args:
        backbone: id of the backbone.
        path: the file; its tensors are called as in the model: normalize.mean, backbone. ..., head.weight.
        size: height and width of the images in pixels.

    Raises UserError if the file cannot be read, or is that of another network.
    """
    state = state_of(path)
    lacking = [name for name in ("normalize.mean", "normalize.std", "head.weight") if name not in state]
    if lacking:
        raise UserError(
            f"{path} has no {lacking[0]}, so that it is no model of backbone {backbone!r}; name a .safetensors file"
            " that a stage or save_model wrote, or give a factory to the backbone from_factory"
        )
    mean, std = (_numbers(state[f"normalize.{name}"]) for name in ("mean", "std"))
    model = build_model(ModelSpec(backbone, (len(mean), size, size), len(state["head.weight"]), mean, std), "import")
    put_weights(model, state, path)
    return model.eval()


def _numbers(tensor: Tensor) -> tuple[float, ...]:
    return tuple(map(float, tensor.flatten()))
