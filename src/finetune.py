"""Fine-tune all parameters of a pretrained model, with a fresh head, under one learning rule."""

from creditflow import files, plugins, runtime
from creditflow.cli import existing_file, run_stage
from creditflow.data.prepared import load_prepared
from creditflow.errors import UserError
from creditflow.models import load_model, replace_head
from creditflow.training.stage import train_stage, training_parser


def main() -> None:
    parser = training_parser(__doc__)
    parser.add_argument("--pretrained", type=existing_file, required=True, help="model file that pretrain.py wrote")
    parser.add_argument("--rule", required=True, help=f"one of: {', '.join(plugins.names('rule'))}")
    args = parser.parse_args()

    device = runtime.setup(args.device, args.threads)
    watch = runtime.Stopwatch(device)
    data = load_prepared(args.data, "train", args.classes)
    test = load_prepared(args.data, "test", args.classes)
    # The head's seed does not name the rule: all rules start from the same weights and see the same batches.
    pretrained = load_model(args.pretrained)
    if pretrained.spec.image_shape != data.image_shape:
        raise UserError(f"{args.pretrained} takes images {pretrained.spec.image_shape}, {args.data} has {data.image_shape}")
    model = replace_head(pretrained, len(data.class_names), "finetune", args.seed).to(device)
    identity = {"stage": "finetune", "pretrained": files.file_sha256(args.pretrained), "rule": args.rule}
    train_stage(args, model, args.rule, data.to(device), test.to(device), identity, watch)


if __name__ == "__main__":
    run_stage(main)
