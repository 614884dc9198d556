"""Write the page of results, README.md, into a folder of exported results.

It is made from the folder's claims.yaml and the experiments' tables.
"""

from pathlib import Path

from creditflow.core import files
from creditflow.reporting.results_page import results_page
from creditflow.stages.command_line import file_path, run_stage, stage_parser


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--folder",
        type=file_path,
        default=Path("docs/results"),
        help="folder with claims.yaml and one folder per experiment",
    )
    args = parser.parse_args()

    page = args.folder / "README.md"
    files.write_atomically(page, results_page(args.folder).encode())
    print(page)


if __name__ == "__main__":
    run_stage(main)
