"""Train a backbone with backpropagation from a random start."""

from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch
from creditflow.core import plugins
from creditflow.models.build import ModelSpec, build_model
from creditflow.stages.command_line import run_stage
from creditflow.stages.training import train_stage, training_data, training_parser


def main() -> None:
    parser = training_parser(__doc__)
    parser.add_argument("--backbone", required=True, help=f"one of: {', '.join(plugins.names('backbone'))}")
    args = parser.parse_args()

    device = use_device(args.device, args.threads)
    watch = Stopwatch(device)
    data, test = training_data(args, device)
    spec = ModelSpec(args.backbone, data.image_shape, len(data.class_names), data.mean, data.std)
    model = build_model(spec, "pretrain", args.seed).to(device)
    identity = {"stage": "pretrain", "spec": spec.to_json()}
    train_stage(args, model, "bp", data, test, identity, watch)


if __name__ == "__main__":
    run_stage(main)
