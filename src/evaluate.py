"""Measure a model's clean accuracy on the test split and write a record."""

import torch

from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core.run_memory import known_sha256
from creditflow.records.record import write_record
from creditflow.stages.command_line import add_compute_options, run_stage, stage_parser
from creditflow.stages.measuring import (
    accuracy_metric,
    add_model_options,
    add_record_option,
    chance_check,
    decay_check,
    history_metrics,
    loaded,
    record_keys,
)
from creditflow.training.accuracy import correct_predictions


def main() -> None:
    parser = stage_parser(__doc__)
    add_model_options(parser)
    add_record_option(parser)
    add_compute_options(parser)
    args = parser.parse_args()

    device = use_device(args.device, args.threads)
    watch = Stopwatch(device)
    model, sidecar, data = loaded(args, device)
    correct = correct_predictions(model, data)
    accuracy = accuracy_metric(correct)
    settings = {
        "stage": "evaluate",
        "input": args.input,
        "classes": args.classes,
        "data": known_sha256(args.data),
        "model": sidecar["sha256"]["weights"],
    }
    write_record(
        args.record,
        record_keys(args, sidecar, attack="clean", gradient="none"),
        [accuracy, *history_metrics(sidecar, len(correct))],
        {"correct": correct[None].numpy(), "example": torch.arange(len(correct)).numpy()},
        checks=chance_check(data.labels) | decay_check(sidecar),
        settings=settings,
        provenance=provenance_of(settings, device),
        run=watch.run_facts(),
    )
    print(f"{args.model}: clean accuracy {accuracy.value:.2%} of {len(correct)} images")


if __name__ == "__main__":
    run_stage(main)
