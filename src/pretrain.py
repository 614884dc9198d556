"""Train a backbone with backpropagation from a random start."""

from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch
from creditflow.core import plugins
from creditflow.stages.command_line import run_stage
from creditflow.stages.identity import check_data
from creditflow.stages.training import classification_data, new_model, train_stage, training_parser
from creditflow.training.task import Classification


def main() -> None:
    parser = training_parser(__doc__)
    parser.add_argument("--backbone", required=True, help=f"one of: {', '.join(plugins.names('backbone'))}")
    args = parser.parse_args()

    device = use_device(args.device, args.threads)
    watch = Stopwatch(device)
    check_data(args)
    data, task = classification_data(args, device), Classification()
    model = new_model(args, "pretrain", data, task).to(device)
    train_stage(args, model, "bp", data, task, {"stage": "pretrain"}, watch)


if __name__ == "__main__":
    run_stage(main)
