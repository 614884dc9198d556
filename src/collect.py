"""Collect all records of an experiment into records.parquet (every metric) and summary.parquet (means, intervals)."""

from pathlib import Path

from creditflow.core.files import write_parquet
from creditflow.records.record import read_record
from creditflow.reporting.collection import long_form, summarize
from creditflow.stages.command_line import add_experiment_options, run_stage, stage_parser
from creditflow.workflow.experiments import find, load_experiments


def main() -> None:
    parser = stage_parser(__doc__)
    add_experiment_options(parser)
    parser.add_argument("--records", type=Path, required=True, help="parquet file to write: all metrics in long form")
    parser.add_argument(
        "--summary", type=Path, required=True, help="parquet file to write: means over seeds with intervals"
    )
    args = parser.parse_args()

    experiment = find(load_experiments(args.experiments, args.schema), args.experiment)
    records = [read_record(path) for path in experiment.record_paths(args.results)]
    write_parquet(args.records, long_form(records))
    write_parquet(args.summary, summarize(records))
    print(f"{args.experiment}: {len(records)} records")


if __name__ == "__main__":
    run_stage(main)
