"""Train all parameters of a pretrained model, with a fresh head, or of a network from a random start, under one learning rule:
to classify images, or to give them hash codes."""

import argparse

import torch

from creditflow.compute import randomness
from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch
from creditflow.core import files, plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.data.inputs import InputSettings
from creditflow.data.prepared import Subset
from creditflow.models.build import ImageClassifier, ModelSpec, build_model, replace_head
from creditflow.models.storage import load_model
from creditflow.stages.command_line import existing_file, json_object, run_stage
from creditflow.stages.training import train_stage, training_data, training_parser
from creditflow.training.task import Classification, Task


def main() -> None:
    parser = training_parser(__doc__)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument(
        "--pretrained", type=existing_file, help="model file that pretrain.py or import_weights.py wrote"
    )
    start.add_argument("--backbone", help=f"random start of one of: {', '.join(plugins.names('backbone'))}")
    parser.add_argument("--rule", required=True, help=f"one of: {', '.join(plugins.names('rule'))}")
    parser.add_argument(
        "--retrieval", type=json_object, help="train for retrieval, not classification: a JSON object, see retrieve.py"
    )
    args = parser.parse_args()

    device = use_device(args.device, args.threads)
    watch = Stopwatch(device)
    data, test, task, width = (
        _for_retrieval(args, device) if args.retrieval is not None else _for_classification(args, device)
    )
    # No seed here names the rule: all rules start from the same weights and see the same batches.
    model = (_pretrained(args, data, width) if args.pretrained else _random_start(args, data, width)).to(device)
    identity = {
        "stage": "finetune",
        "pretrained": files.file_sha256(args.pretrained) if args.pretrained else None,
        "rule": args.rule,
    }
    if args.retrieval is not None:
        identity["retrieval"] = args.retrieval
    train_stage(args, model, args.rule, data, test, identity | {"spec": model.spec.to_json()}, watch, task)


def _for_classification(args: argparse.Namespace, device: torch.device) -> tuple[Subset, Subset, Task, int]:
    data, test = training_data(args, device)
    return data, test, Classification(), len(data.class_names)


def _for_retrieval(args: argparse.Namespace, device: torch.device) -> tuple[Subset, Subset, Task, int]:
    from creditflow.retrieval.hyp2 import HyP2
    from creditflow.retrieval.protocol import load_retrieval
    from creditflow.retrieval.settings import parse_retrieval
    from creditflow.retrieval.task import Retrieval

    settings, protocol, loss = parse_retrieval(args.retrieval, "--retrieval")
    parts = load_retrieval(args.data, protocol, args.classes, parse(InputSettings, args.input, "--input"))
    data, test = parts["train"].to(device), parts["query"].to(device)
    proxies = randomness.generator("finetune", "proxies", args.seed)
    task = Retrieval(
        HyP2(settings.bits, len(data.class_names), loss, proxies), settings.top, settings.proxy_learning_rate
    )
    return data, test, task, settings.bits


def _pretrained(args: argparse.Namespace, data: Subset, width: int) -> ImageClassifier:
    pretrained = load_model(args.pretrained)
    if pretrained.spec.image_shape != data.image_shape:
        raise UserError(
            f"{args.pretrained} takes images {pretrained.spec.image_shape}, {args.data} has {data.image_shape}"
        )
    return replace_head(pretrained, width, "finetune", args.seed)


def _random_start(args: argparse.Namespace, data: Subset, width: int) -> ImageClassifier:
    spec = ModelSpec(args.backbone, data.image_shape, width, data.mean, data.std)
    return build_model(spec, "finetune", args.seed)


if __name__ == "__main__":
    run_stage(main)
