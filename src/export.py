"""Write an experiment's tables and figures, their provenance and a page that shows them into one folder to keep."""

from pathlib import Path

from creditflow.reporting.export import export
from creditflow.stages.command_line import add_experiment_options, file_path, run_stage, stage_parser
from creditflow.workflow.finished import finished
from creditflow.workflow.loading import load_experiment


def main() -> None:
    parser = stage_parser(__doc__)
    add_experiment_options(parser)
    parser.add_argument(
        "--output", type=file_path, default=Path("docs/results"), help="folder that gets one of the experiment's name"
    )
    parser.add_argument(
        "--mixed", action="store_true", help="allow records made by different versions of the sources; the page says so"
    )
    args = parser.parse_args()

    experiment = finished(load_experiment(args.experiments, args.experiment), args.results)
    print(export(experiment, args.output, mixed=args.mixed))


if __name__ == "__main__":
    run_stage(main)
