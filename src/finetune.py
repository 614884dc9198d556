"""Train all parameters of a network under one learning rule, to classify images or to give them hash codes.

The network is a pretrained model with a fresh head, or a backbone from a random start.
"""

import argparse

from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch
from creditflow.compute.randomness import Streams
from creditflow.core import files, plugins
from creditflow.stages import identity, training
from creditflow.stages.command_line import existing_file, json_object, run_stage
from creditflow.training.task import Classification, Task


def options() -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = training.training_parser(__doc__)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument(
        "--pretrained", type=existing_file, help="model file that pretrain.py or import_weights.py wrote"
    )
    start.add_argument("--backbone", help=f"random start of one of: {', '.join(plugins.names('backbone'))}")
    identity.add_expected_model(parser, "pretrained")
    training.add_rule_options(parser)
    parser.add_argument(
        "--retrieval", type=json_object, help="train for retrieval, not classification: a JSON object, see retrieve.py"
    )
    return parser.parse_args()


def main() -> None:
    args = options()
    device = use_device(args.device, args.threads)
    watch = Stopwatch(device)
    job = {
        "stage": "finetune",
        "pretrained": files.file_sha256(args.pretrained) if args.pretrained else None,
        "rule": args.rule,
    }
    identity.check_data(args)
    task: Task
    if args.retrieval is None:
        data, task = training.classification_data(args, device), Classification()
    else:
        from creditflow.retrieval.training import retrieval_training

        job["retrieval"] = args.retrieval
        inputs, streams = training.input_settings(args), Streams("finetune", args.seed)
        data, task = retrieval_training(args.retrieval, args.data, args.classes, inputs, streams, device)
    # The seeds do not name the rule: under all rules training begins with the same weights and sees the same batches.
    start_model = training.pretrained_model if args.pretrained else training.new_model
    model = start_model(args, "finetune", data, task).to(device)
    training.train_stage(args, model, args.rule, data, task, job, watch, training.stop_at(args))


if __name__ == "__main__":
    run_stage(main)
