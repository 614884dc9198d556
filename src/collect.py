"""Collect all records of an experiment into records.parquet (every metric) and summary.parquet (means, intervals)."""

from creditflow.records.frames import write_frame
from creditflow.records.listing import read_listed
from creditflow.reporting.collection import long_form, summarize
from creditflow.stages.command_line import add_records_option, file_path, run_stage, stage_parser
from creditflow.workflow.layout import record_keys


def main() -> None:
    parser = stage_parser(__doc__)
    add_records_option(parser)
    parser.add_argument(
        "--records", type=file_path, required=True, help="parquet file to write: all metrics in long form"
    )
    parser.add_argument(
        "--summary", type=file_path, required=True, help="parquet file to write: means over seeds with intervals"
    )
    args = parser.parse_args()

    records = read_listed(args.records_list, record_keys)
    write_frame(args.records, long_form(records), "records", records)
    write_frame(args.summary, summarize(records), "summary", records)
    print(f"{len(records)} records")


if __name__ == "__main__":
    run_stage(main)
