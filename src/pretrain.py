"""Train a backbone with backpropagation from a random start."""

from creditflow import plugins, runtime
from creditflow.cli import run_stage
from creditflow.models import ModelSpec, build_model
from creditflow.training.stage import train_stage, training_data, training_parser


def main() -> None:
    parser = training_parser(__doc__)
    parser.add_argument("--backbone", required=True, help=f"one of: {', '.join(plugins.names('backbone'))}")
    args = parser.parse_args()

    device = runtime.setup(args.device, args.threads)
    watch = runtime.Stopwatch(device)
    data, test = training_data(args, device)
    spec = ModelSpec(args.backbone, data.image_shape, len(data.class_names), data.mean, data.std)
    model = build_model(spec, "pretrain", args.seed).to(device)
    identity = {"stage": "pretrain", "spec": spec.to_json()}
    train_stage(args, model, "bp", data, test, identity, watch)


if __name__ == "__main__":
    run_stage(main)
