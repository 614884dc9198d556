"""Do the audit's words survive other seeds and other images? The table of docs/audit.md, from a finished experiment.

    python benchmarks/stability.py [--experiment NAME] [--halves N] [--page FILE]

Every triple of seeds and random halves of the images are audited by themselves. A part contradicts the whole run if
both have a decided word and these differ. The last line is one JSON object {name: number}: the share of contradictions
among all parts and comparisons, in percent.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from _page import put_tables

from creditflow.attacks.kinds import required_of
from creditflow.core.errors import UserError
from creditflow.core.programs import run_program
from creditflow.records.listing import read_records
from creditflow.reporting.names import display
from creditflow.reporting.rules import by_rule_order
from creditflow.stages.command_line import existing_file, positive
from creditflow.verdict.cells import OUTCOMES
from creditflow.verdict.given import of_use
from creditflow.verdict.stability import PARTS, stability
from creditflow.workflow.finished import finished
from creditflow.workflow.loading import load_experiment

ROOT = Path(__file__).resolve().parents[1]
TITLES = {"claim_verdict": "claim", "net_effect": "net effect"}


def measured(args: argparse.Namespace) -> pd.DataFrame:
    """Returns the stability of an experiment's words. Raises UserError if it has no audit, or a record is missing."""
    experiment = finished(load_experiment(args.experiments, args.experiment), args.results)
    if experiment.audit is None:
        raise UserError(f"{experiment.name} has no audit; name another experiment")
    records = read_records(experiment.records, experiment.keys_of)
    task = "retrieval" if any(record.keys.task == "retrieval" for record in records) else "classification"
    kept, impossible = of_use(records)
    settings = {**experiment.audit, "impossible": impossible} if impossible else experiment.audit
    return stability(kept, settings, OUTCOMES[task], required_of(task), halves=args.halves)


def rows(frame: pd.DataFrame) -> list[dict[str, str]]:
    """Returns the table's rows: one for each word of each comparison, and one of all together."""
    ordered = by_rule_order(frame).sort_values(["dataset", "backbone", "epsilon"], kind="stable")
    shown = [
        {
            "rule": display(row["rule"]),
            "epsilon": f"{row['epsilon']:g}",
            "question": TITLES[row["word"]],
            "whole run": row["whole"],
        }
        | _shares(row)
        for row in ordered.to_dict("records")
    ]
    total = frame.mean(numeric_only=True).to_dict()
    return [*shown, {"rule": "all", "epsilon": "", "question": "", "whole run": ""} | _shares(total)]


def _shares(row: dict[str, float]) -> dict[str, str]:
    cells = {}
    for part, title in zip(PARTS, ("triples", "halves", "first and second half"), strict=True):
        count = f"{title} ({row[f'{part}_n']:g})"
        for fate in ("contradict", "unresolved"):
            share = row[f"{part}_{fate}"]
            cells[f"{count}: {fate}"] = "" if pd.isna(share) else f"{100 * share:.1f}"
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="decade", help="a finished experiment with an audit and four seeds")
    parser.add_argument("--experiments", type=existing_file, default=ROOT / "config/experiments")
    parser.add_argument("--results", type=existing_file, default=ROOT / "results")
    parser.add_argument("--halves", type=positive, default=100, help="number of random halves of the images")
    parser.add_argument(
        "--page", type=Path, default=ROOT / "docs/audit.md", help="page with marks for the table `stability`"
    )
    args = parser.parse_args()
    frame = measured(args)
    put_tables(args.page, {"stability": rows(frame)})
    print(json.dumps({f"{part}_contradict": 100 * frame[f"{part}_contradict"].mean() for part in PARTS}))


if __name__ == "__main__":
    run_program(main)
