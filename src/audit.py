"""Audit an experiment: each rule against backpropagation, by the worst case over a set of attacks (docs/audit.md)."""

from pathlib import Path

from creditflow.audit.verdicts import audit
from creditflow.core.files import write_parquet
from creditflow.records.record import read_listed
from creditflow.stages.command_line import add_records_option, json_object, run_stage, stage_parser


def main() -> None:
    parser = stage_parser(__doc__)
    add_records_option(parser)
    parser.add_argument("--settings", type=json_object, required=True, help="the experiment's `audit` keys")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="parquet file to write: a row per dataset, backbone, rule and epsilon",
    )
    args = parser.parse_args()

    frame = audit(read_listed(args.records_list), args.settings)
    write_parquet(args.output, frame)
    for row in frame[frame.verdict != ""].itertuples():
        print(f"{row.dataset} {row.backbone} {row.rule} at {row.epsilon:g}: {row.verdict}")


if __name__ == "__main__":
    run_stage(main)
