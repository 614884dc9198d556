"""Collect all records of an experiment into records.parquet (every metric) and summary.parquet (means, intervals)."""

from pathlib import Path

from creditflow.core.files import write_parquet
from creditflow.records.record import read_listed
from creditflow.reporting.collection import long_form, summarize
from creditflow.stages.command_line import add_records_option, run_stage, stage_parser


def main() -> None:
    parser = stage_parser(__doc__)
    add_records_option(parser)
    parser.add_argument("--records", type=Path, required=True, help="parquet file to write: all metrics in long form")
    parser.add_argument(
        "--summary", type=Path, required=True, help="parquet file to write: means over seeds with intervals"
    )
    args = parser.parse_args()

    records = read_listed(args.records_list)
    write_parquet(args.records, long_form(records))
    write_parquet(args.summary, summarize(records))
    print(f"{len(records)} records")


if __name__ == "__main__":
    run_stage(main)
