"""Train all parameters of a pretrained model, with a fresh head, or of a network from a random start, under one learning rule."""

import argparse

from creditflow import files, plugins, runtime
from creditflow.cli import existing_file, run_stage
from creditflow.data.prepared import Subset
from creditflow.errors import UserError
from creditflow.models import ImageClassifier, ModelSpec, build_model, load_model, replace_head
from creditflow.training.stage import train_stage, training_data, training_parser


def main() -> None:
    parser = training_parser(__doc__)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--pretrained", type=existing_file, help="model file that pretrain.py or import_weights.py wrote")
    start.add_argument("--backbone", help=f"random start of one of: {', '.join(plugins.names('backbone'))}")
    parser.add_argument("--rule", required=True, help=f"one of: {', '.join(plugins.names('rule'))}")
    args = parser.parse_args()

    device = runtime.setup(args.device, args.threads)
    watch = runtime.Stopwatch(device)
    data, test = training_data(args, device)
    # No seed here names the rule: all rules start from the same weights and see the same batches.
    model = (_pretrained(args, data) if args.pretrained else _random_start(args, data)).to(device)
    identity = {"stage": "finetune", "pretrained": files.file_sha256(args.pretrained) if args.pretrained else None, "rule": args.rule}
    train_stage(args, model, args.rule, data, test, identity | {"spec": model.spec.to_json()}, watch)


def _pretrained(args: argparse.Namespace, data: Subset) -> ImageClassifier:
    pretrained = load_model(args.pretrained)
    if pretrained.spec.image_shape != data.image_shape:
        raise UserError(f"{args.pretrained} takes images {pretrained.spec.image_shape}, {args.data} has {data.image_shape}")
    return replace_head(pretrained, len(data.class_names), "finetune", args.seed)


def _random_start(args: argparse.Namespace, data: Subset) -> ImageClassifier:
    spec = ModelSpec(args.backbone, data.image_shape, len(data.class_names), data.mean, data.std)
    return build_model(spec, "finetune", args.seed)


if __name__ == "__main__":
    run_stage(main)
