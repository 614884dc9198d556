"""What the stages of retrieval share: their options, and the data and the model that they look at."""

import argparse
from dataclasses import asdict
from typing import Any

import torch

from creditflow.core.errors import UserError
from creditflow.core.run_memory import known_sha256
from creditflow.core.settings import parse, plain
from creditflow.data.prepared import Subset
from creditflow.data.settings import InputSettings
from creditflow.models.build import ImageClassifier
from creditflow.models.storage import load_classifier, read_sidecar
from creditflow.retrieval.protocol import Part, load_retrieval
from creditflow.retrieval.settings import RetrievalSettings
from creditflow.retrieval.storage import Encoded, load_codes
from creditflow.stages.command_line import existing_file, json_object
from creditflow.stages.measuring import add_model_options, check_expected, placed, record_keys

RETRIEVAL_HELP = (
    'such as {"bits": 32, "top": 5000, "loss": {}, "protocol": {"kind": "per_class", "query": 100, "train": 500}}'
)


def add_retrieval_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say what is measured."""
    add_model_options(parser)
    parser.add_argument("--retrieval", type=json_object, required=True, help=RETRIEVAL_HELP)


def add_codes_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option for what encode.py wrote."""
    parser.add_argument("--codes", type=existing_file, required=True, help="codes that encode.py wrote")


def retrieval_model(
    args: argparse.Namespace, device: torch.device
) -> tuple[ImageClassifier, dict[str, Any], dict[Part, Subset], RetrievalSettings, dict[str, Any]]:
    """Returns model and parts of the data on the device, the model's sidecar, the settings, and what codes follow from.

    Raises UserError if model or data are not what is expected, if they do not fit each other, or if the model is not
    one for retrieval with these settings.
    """
    check_expected(args)
    settings = parse(RetrievalSettings, args.retrieval, "--retrieval")
    inputs = parse(InputSettings, args.input, "--input")
    model, sidecar = load_classifier(args.model), read_sidecar(args.model)
    parts = load_retrieval(args.data, settings.protocol, args.classes, inputs)
    shape = parts["query"].image_shape
    if (model.spec.image_shape, model.spec.n_classes) != (shape, settings.bits):
        raise UserError(
            f"{args.model} takes images {model.spec.image_shape} and gives {model.spec.n_classes} numbers;"
            f" the data has images {shape}, and codes have {settings.bits} bits; check --data, --input and --retrieval"
        )
    source = {
        "model": sidecar["sha256"]["weights"],
        "data": known_sha256(args.data),
        "input": args.input,
        "protocol": plain(settings.protocol) | {"classes": args.classes},
    }
    return placed(model, device), sidecar, {name: part.to(device) for name, part in parts.items()}, settings, source


def codes_identity(args: argparse.Namespace, sidecar: dict[str, Any]) -> dict[str, object]:
    """Returns which model's codes are made or read: experiment, dataset, backbone, rule and seed."""
    keys = asdict(record_keys(args, sidecar, attack="clean", gradient="none", task="retrieval"))
    return {name: keys[name] for name in ("experiment", "task", "dataset", "backbone", "rule", "seed")}


def read_codes(args: argparse.Namespace, sidecar: dict[str, Any], source: dict[str, Any]) -> dict[Part, Encoded]:
    """Returns the codes `--codes`. Raises UserError as `load_codes` does, and if they are those of another model."""
    return load_codes(args.codes, source, codes_identity(args, sidecar) if args.expect_model else None)
