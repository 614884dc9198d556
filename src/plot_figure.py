"""Draw one figure from one of an experiment's frames: PDF, SVG and PNG."""

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.reporting.collection import read_frames
from creditflow.reporting.figure import Figure, write_figure
from creditflow.reporting.forms import FIGURE, write_seal
from creditflow.stages.command_line import (
    add_frame_options,
    file_path,
    frame_paths,
    json_object,
    run_stage,
    stage_parser,
)
from creditflow.stages.settings_help import add_settings_help, parse_or_show_settings
from creditflow.workflow.layout import record_keys


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--figure", required=True, help=f"one of: {', '.join(plugins.names('figure'))}")
    parser.add_argument("--settings", type=json_object, default={}, help="parameters of the figure")
    add_frame_options(
        parser, "what the figure shows, as its `source` says: a parquet file, single records or populations"
    )
    parser.add_argument(
        "--output", type=file_path, required=True, help="file to write; its suffix is replaced by .pdf, .svg, .png"
    )
    parser.add_argument("--experiment", help="name of the experiment that is shown; any if absent")
    add_settings_help(parser, "figure")
    args = parse_or_show_settings(parser, "figure", "figure")

    figure: Figure = plugins.load("figure", args.figure).FIGURE
    settings = parse(plugins.settings_class("figure", args.figure), args.settings, f"settings of figure {args.figure}")
    paths = frame_paths(args)
    frames = read_frames(paths, figure.source, args.experiment, record_keys)
    if len(frames) != 1:
        raise UserError(f"a figure shows one frame, {args.figure} names {len(frames)}; give its Figure one as `source`")
    (frame,) = frames
    write_figure(figure, frame, settings, args.output)
    write_seal(args.output, FIGURE, {"experiment": args.experiment, "figure": args.figure}, paths)


if __name__ == "__main__":
    run_stage(main)
