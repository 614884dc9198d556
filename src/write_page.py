"""Write the page of results, README.md, into a folder of exported results, and the numbers of the project's README.

Both are made from the folder's claims.yaml and the experiments' tables.
"""

from pathlib import Path

from creditflow.core import files
from creditflow.reporting.readme import with_numbers
from creditflow.reporting.results_page import results_page
from creditflow.stages.command_line import existing_file, file_path, run_stage, stage_parser


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--folder",
        type=file_path,
        default=Path("docs/results"),
        help="folder with claims.yaml and one folder per experiment",
    )
    parser.add_argument("--readme", type=existing_file, help="README whose numbers are written, too; none if absent")
    args = parser.parse_args()

    written = {args.folder / "README.md": results_page(args.folder)}
    if args.readme:
        text = args.readme.read_text(encoding="utf-8")
        written[args.readme] = with_numbers(text, args.readme, args.folder)
    for path, page in written.items():
        files.write_atomically(path, page.encode())
        print(path)


if __name__ == "__main__":
    run_stage(main)
