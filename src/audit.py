"""Audit an experiment: each rule against backpropagation, or each given model against the reference.

What is compared is the worst case over a set of attacks (docs/audit.md).
"""

from creditflow.attacks.kinds import required_of
from creditflow.records.frames import write_frame
from creditflow.records.listing import read_listed
from creditflow.stages.command_line import add_records_option, file_path, json_object, run_stage, stage_parser
from creditflow.verdict.cells import OUTCOMES
from creditflow.verdict.given import of_use
from creditflow.verdict.verdicts import audit
from creditflow.workflow.layout import record_keys


def main() -> None:
    parser = stage_parser(__doc__)
    add_records_option(parser)
    parser.add_argument("--settings", type=json_object, required=True, help="the experiment's `audit` keys")
    parser.add_argument(
        "--output",
        type=file_path,
        required=True,
        help="parquet file to write: a row per dataset, backbone, rule and epsilon",
    )
    args = parser.parse_args()

    records = read_listed(args.records_list, record_keys)
    task = "retrieval" if any(record.keys.task == "retrieval" for record in records) else "classification"
    kept, impossible = of_use(records)
    settings = args.settings | ({"impossible": impossible} if impossible else {})
    frame = audit(kept, settings, OUTCOMES[task], required_of(task))
    write_frame(args.output, frame, "audit", records)
    for row in frame[frame.net_effect != ""].itertuples():
        words = f"{row.claim_verdict}; {row.net_effect}" + (f" ({row.reason})" if row.reason else "")
        print(f"{row.dataset} {row.backbone} {row.rule} at {row.epsilon:g}: {words}")


if __name__ == "__main__":
    run_stage(main)
