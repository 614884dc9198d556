"""Audit an experiment: each rule against backpropagation, by the worst case over a set of attacks (docs/audit.md)."""

from pathlib import Path

from creditflow.cli import existing_file, json_object, run_stage, stage_parser
from creditflow.experiments import find, load_experiments
from creditflow.files import write_parquet
from creditflow.records import read_record
from creditflow.reporting.audit import audit


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--experiment", required=True, help="name of a file in the experiments folder")
    parser.add_argument("--experiments", type=existing_file, default=Path("config/experiments"), help="folder of experiments")
    parser.add_argument("--schema", type=existing_file, default=Path("config/schema.yaml"), help="their schema")
    parser.add_argument("--results", type=existing_file, default=Path("results"), help="folder that holds the experiment's records")
    parser.add_argument("--settings", type=json_object, required=True, help="the experiment's `audit` keys")
    parser.add_argument("--output", type=Path, required=True, help="parquet file to write: a row per dataset, backbone, rule and epsilon")
    args = parser.parse_args()

    experiment = find(load_experiments(args.experiments, args.schema), args.experiment)
    frame = audit([read_record(path) for path in experiment.record_paths(args.results)], args.settings)
    write_parquet(args.output, frame)
    for row in frame[frame.verdict != ""].itertuples():
        print(f"{row.dataset} {row.backbone} {row.rule} at {row.epsilon:g}: {row.verdict}")


if __name__ == "__main__":
    run_stage(main)
