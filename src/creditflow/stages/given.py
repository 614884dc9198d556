"""What the stage that takes over a given model does: its options, the model, and the check of its backward pass."""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from creditflow.core.factory import parse_source
from creditflow.core.files import file_sha256
from creditflow.core.run_memory import known_sha256
from creditflow.core.settings import parse
from creditflow.data.prepared import load_prepared
from creditflow.data.settings import InputSettings
from creditflow.derivatives.check import check_gradient
from creditflow.derivatives.frozen import frozen
from creditflow.derivatives.report import GradientReport
from creditflow.derivatives.steadiness import IMAGES, Probe, first_answers, untouched
from creditflow.models.factories import make_model
from creditflow.models.fitting import check_fits
from creditflow.stages import identity
from creditflow.stages.command_line import (
    existing_file,
    file_path,
    json_object,
    natural,
    stage_parser,
    thread_count,
)

#: The number of images that the backward pass is checked with.
_CHECKED = 8

#: How far pixels are moved, to see whether outputs depend on earlier calls.
_RADIUS = 0.1


def options(description: str | None) -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = stage_parser(description)
    parser.add_argument("--factory", required=True, help="what makes the network, such as my_model.py:make_model")
    parser.add_argument("--weights", type=existing_file, help="file of its weights (.safetensors, or a state dict)")
    parser.add_argument("--sha256", help="SHA-256 of that file, or at least the first 8 digits; any if absent")
    parser.add_argument("--data", type=existing_file, required=True, help="dataset that prepare.py wrote")
    parser.add_argument(
        "--input", type=json_object, default={}, help='what the network sees, such as {"size": 224, "channels": 3}'
    )
    parser.add_argument("--classes", type=natural, nargs="+", help="labels to use, renumbered 0, 1, ...; all if absent")
    parser.add_argument("--name", required=True, help="what results call the model, where a rule stands elsewhere")
    parser.add_argument("--seed", type=natural, default=0, help="the seed that the model was trained with")
    parser.add_argument("--threads", type=thread_count, default=1, help="CPU threads")
    parser.add_argument(
        "--output", type=file_path, required=True, help="model file to write (.safetensors, with sidecar)"
    )
    identity.add_filing_options(parser)
    identity.add_expected_data(parser)
    return parser.parse_args()


def checked_model(args: argparse.Namespace) -> tuple[nn.Module, str, GradientReport]:
    """Returns the model that the options name, the factory that makes it again, and what its backward pass is worth.

    Raises UserError if the model cannot be made, does not take the images, gives something else than a number for each
    class, or does not always compute the same (`derivatives/steadiness.py`).
    """
    data = load_prepared(args.data, "test", args.classes, parse(InputSettings, args.input, "--input"))
    model = make_model(args.factory, weights=args.weights, sha256=args.sha256)
    copy = untouched(model)
    check_fits(model, data, args.factory)
    images, labels = data.batch(torch.arange(min(IMAGES, len(data.labels))))
    first_answers(model, Probe(f"the model of {args.factory}", images, _RADIUS, args.seed), copy)
    chosen = slice(0, _CHECKED)
    with frozen(model):
        report = check_gradient(model, images[chosen], None if data.multi_label else labels[chosen])
    return model, _lasting(args.factory, len(data.class_names)), report


def _lasting(factory: str, n_classes: int) -> str:
    """Returns a factory that makes the network without its weights: they tell how many outputs torchvision's has."""
    source = parse_source(factory)
    complete = source.kind != "torchvision" or source.n_classes is not None or source.weights is not None
    return factory if complete else f"{factory.strip()}:{n_classes}"


def plain_report(value: Any) -> Any:
    """Returns what a report says as JSON takes it: None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: plain_report(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain_report(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def job(args: argparse.Namespace) -> dict[str, Any]:
    """Returns everything that the model, and what is said of it, follow from."""
    source = parse_source(args.factory).file(Path.cwd())
    return {
        "stage": "import_model",
        "factory": args.factory,
        "factory_sha256": None if source is None else file_sha256(source),
        "weights": None if args.weights is None else file_sha256(args.weights),
        "input": args.input,
        "classes": args.classes,
        "data": known_sha256(args.data),
        "seed": args.seed,
    }
