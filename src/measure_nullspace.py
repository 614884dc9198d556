"""Measure how much of a rule's update changes nothing, on the target-propagation paper's toy regression."""

import torch

from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core import plugins
from creditflow.core.settings import parse, plain
from creditflow.populations.nullspace import STUDENT, nullspace_metrics, nullspace_ratios
from creditflow.populations.nullspace_settings import NullspaceSettings
from creditflow.populations.rule import get_update_rule
from creditflow.records.record import Keys, write_record
from creditflow.stages.command_line import file_path, json_object, natural, run_stage, stage_parser


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--rule", required=True, help=f"one of: {', '.join(plugins.names('update_rule'))}")
    parser.add_argument(
        "--settings", type=json_object, default={}, help='such as {"rule": {"step_size": 0.04, "sigma": 0.06}}'
    )
    parser.add_argument("--seed", type=natural, default=0, help="every random number derives from it")
    parser.add_argument("--experiment", default="manual", help="name under which the record is filed")
    parser.add_argument(
        "--record", type=file_path, required=True, help="record to write (.json, with a .safetensors beside it)"
    )
    args = parser.parse_args()

    device = use_device("cpu", 1)
    watch = Stopwatch(device)
    settings = parse(NullspaceSettings, args.settings, "--settings")
    ratios = nullspace_ratios(get_update_rule(args.rule), settings, args.seed)
    facts = {"stage": "measure_nullspace", "rule": args.rule, "seed": args.seed, "settings": plain(settings)}
    metrics = nullspace_metrics(ratios)
    student = f"mlp_{'_'.join(map(str, STUDENT))}"
    write_record(
        args.record,
        Keys(args.experiment, "regression", "student_teacher", student, args.rule, args.seed, "clean", "none"),
        metrics,
        {"nullspace_ratio": ratios.numpy(), "example": torch.arange(len(ratios)).numpy()},
        settings=facts,
        provenance=provenance_of(facts, device),
        run=watch.run_facts(),
    )
    mean, deviation = (metric.value for metric in metrics)
    print(f"{args.rule}: a share of {mean:.3f} of the update (SD {deviation:.3f}) changes nothing")


if __name__ == "__main__":
    run_stage(main)
