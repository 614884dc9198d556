"""Fetch a dataset's raw files from the first source that has them, verified by their checksums."""

from creditflow.core import files, plugins
from creditflow.data.dataset import Dataset
from creditflow.data.fetching import fetch
from creditflow.stages.command_line import file_path, run_stage, stage_parser


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="id of a dataset (a file in src/creditflow/data/datasets)")
    parser.add_argument(
        "--search-path", type=file_path, action="append", default=[], help="folder to look in first; repeatable"
    )
    parser.add_argument(
        "--output",
        type=file_path,
        required=True,
        help="folder for the raw files, or for a note that says where they are",
    )
    args = parser.parse_args()

    dataset: Dataset = plugins.load("dataset", args.dataset).DATASET
    with files.folder_atomically(args.output) as scratch:
        source = fetch(args.dataset, dataset.checksums, dataset.sources, args.search_path, scratch)
    print(f"{args.dataset}: from {source}")


if __name__ == "__main__":
    run_stage(main)
