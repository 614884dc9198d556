"""Collect all records of an experiment into records.parquet (every metric) and summary.parquet (means, intervals)."""

import io
from pathlib import Path

import pandas as pd

from creditflow import files
from creditflow.cli import existing_file, run_stage, stage_parser
from creditflow.experiments import find, load_experiments
from creditflow.records import read_record
from creditflow.reporting.collection import long_form, summarize


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--experiment", required=True, help="name of a file in the experiments folder")
    parser.add_argument("--experiments", type=existing_file, default=Path("config/experiments"), help="folder of experiments")
    parser.add_argument("--schema", type=existing_file, default=Path("config/schema.yaml"), help="their schema")
    parser.add_argument("--results", type=existing_file, default=Path("results"), help="folder that holds the experiment's records")
    parser.add_argument("--records", type=Path, required=True, help="parquet file to write: all metrics in long form")
    parser.add_argument("--summary", type=Path, required=True, help="parquet file to write: means over seeds with intervals")
    args = parser.parse_args()

    experiment = find(load_experiments(args.experiments, args.schema), args.experiment)
    records = [read_record(path) for path in experiment.record_paths(args.results)]
    _write(long_form(records), args.records)
    _write(summarize(records), args.summary)
    print(f"{args.experiment}: {len(records)} records")


def _write(frame: pd.DataFrame, path: Path) -> None:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    files.write_atomically(path, buffer.getvalue())


if __name__ == "__main__":
    run_stage(main)
