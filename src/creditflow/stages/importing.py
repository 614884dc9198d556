"""What the stage that takes over weights does: its options, and the model that the weights are for."""

import argparse
from typing import Any

from creditflow.core import plugins
from creditflow.core.backbones import has_published
from creditflow.core.errors import UserError
from creditflow.models.build import ImageClassifier
from creditflow.models.local_weights import factory_hash, import_network, import_own
from creditflow.models.published import import_state, published_digits, verify
from creditflow.stages.command_line import existing_file, file_path, image_size, natural, stage_parser

#: The backbone whose network a factory makes.
_BY_FACTORY = "from_factory"


def options(description: str | None) -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = stage_parser(description)
    parser.add_argument("--backbone", required=True, help=f"one of: {', '.join(plugins.names('backbone'))}")
    parser.add_argument(
        "--file",
        type=existing_file,
        required=True,
        help="published state dict (.pth), or the weights of another backbone (.safetensors, or a state dict)",
    )
    parser.add_argument(
        "--sha256",
        help="SHA-256 of the file, or at least the first 8 digits; if absent, the digits in its name or those that are"
        " published",
    )
    parser.add_argument(
        "--weights",
        help="name of the published weights, for their mean and standard deviation",
        default="IMAGENET1K_V1",
    )
    parser.add_argument(
        "--factory", help="what makes the network of --backbone from_factory, such as my_model.py:make_model"
    )
    parser.add_argument(
        "--size", type=image_size, default=224, help="height and width of the images that the model will take"
    )
    parser.add_argument(
        "--channels", type=natural, default=3, help="channels of the images that the network of --factory takes"
    )
    parser.add_argument("--experiment", default="manual", help="name of the experiment that the model is filed under")
    parser.add_argument(
        "--output", type=file_path, required=True, help="model file to write (.safetensors, with sidecar)"
    )
    return parser.parse_args()


def imported(args: argparse.Namespace) -> tuple[ImageClassifier, dict[str, Any]]:
    """Returns the model of the weights, and everything that it follows from.

    Raises UserError if the file is not the one that is meant or does not fit the backbone, or the options contradict
    each other.
    """
    if (args.backbone == _BY_FACTORY) != (args.factory is not None):
        raise UserError(f"--factory goes with --backbone {_BY_FACTORY}, and only with it; give both or neither")
    sha256 = verify(args.file, args.sha256, lambda: published_digits(args.backbone, args.weights))
    job = {"stage": "import_weights", "backbone": args.backbone, "size": args.size, "sha256": sha256}
    if args.factory is not None:
        job |= {"factory": args.factory, "factory_sha256": factory_hash(args.factory), "channels": args.channels}
        return import_network(args.factory, args.file, (args.channels, args.size, args.size)), job
    if not has_published(args.backbone):
        return import_own(args.backbone, args.file, args.size), job
    # Weights of somebody else may have the published ones' normalisation, but they are not the published ones.
    job |= {"weights": args.weights, "published": sha256.startswith(published_digits(args.backbone, args.weights))}
    return import_state(args.backbone, args.file, args.weights, args.size), job
