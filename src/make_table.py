"""Make one table from an experiment's frames and published numbers: CSV, Markdown, LaTeX and HTML."""

from creditflow.core import plugins
from creditflow.core.settings import parse
from creditflow.reporting.collection import read_frames
from creditflow.reporting.forms import TABLE, write_seal
from creditflow.reporting.listing import Listing
from creditflow.reporting.table import Table
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
    parser.add_argument("--table", required=True, help=f"one of: {', '.join(plugins.names('table'))}")
    parser.add_argument(
        "--settings", type=json_object, default={}, help='parameters of the table, such as {"epsilon": 0.1}'
    )
    add_frame_options(parser, "what the table shows, in the order of its `source`")
    parser.add_argument(
        "--output",
        type=file_path,
        required=True,
        help="file to write; its suffix is replaced by .csv, .md, .tex, .html",
    )
    parser.add_argument("--experiment", help="name of the experiment that is shown; any if absent")
    add_settings_help(parser, "table")
    args = parse_or_show_settings(parser, "table", "table")

    table: Table | Listing = plugins.load("table", args.table).TABLE
    settings = parse(plugins.settings_class("table", args.table), args.settings, f"settings of table {args.table}")
    caption = " ".join(plugins.docstring("table", args.table).split())
    paths = frame_paths(args)
    frames = read_frames(paths, table.source, args.experiment, record_keys)
    table.write(frames, settings, caption, args.output)
    write_seal(args.output, TABLE, {"experiment": args.experiment, "table": args.table}, paths)


if __name__ == "__main__":
    run_stage(main)
