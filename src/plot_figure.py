"""Draw one figure from an experiment's summary or audit: PDF, SVG and PNG."""

from pathlib import Path

from creditflow import plugins
from creditflow.cli import existing_file, json_object, run_stage, stage_parser
from creditflow.reporting.collection import read_frame
from creditflow.reporting.figure import Figure, write_figure
from creditflow.settings import parse


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--figure", required=True, help=f"one of: {', '.join(plugins.names('figure'))}")
    parser.add_argument("--settings", type=json_object, default={}, help="parameters of the figure")
    parser.add_argument("--frame", type=existing_file, required=True, help="summary.parquet or audit.parquet, as the figure needs")
    parser.add_argument("--output", type=Path, required=True, help="file to write; its suffix is replaced by .pdf, .svg, .png")
    args = parser.parse_args()

    figure: Figure = plugins.load("figure", args.figure).FIGURE
    settings = parse(figure.settings, args.settings, f"settings of figure {args.figure}")
    write_figure(figure, read_frame(args.frame, figure.source), settings, args.output)


if __name__ == "__main__":
    run_stage(main)
