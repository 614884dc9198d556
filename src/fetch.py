"""Fetch a dataset's raw files from the first source that has them, verified by their checksums.

Of a folder of images that the user names, only a note is written that says where it is and what it has.
"""

from creditflow.core import files, plugins
from creditflow.core.errors import UserError
from creditflow.data.dataset import Dataset
from creditflow.data.fetching import fetch, note_folder
from creditflow.data.image_folders import plugin_of
from creditflow.stages.command_line import existing_file, file_path, json_object, run_stage, stage_parser


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="id of a dataset (a file in src/creditflow/data/datasets)")
    parser.add_argument(
        "--search-path", type=file_path, action="append", default=[], help="folder to look in first; repeatable"
    )
    parser.add_argument("--folder", type=existing_file, help="folder of images, for --dataset image_folder")
    parser.add_argument("--split", type=json_object, help='how its images are split, such as {"test": 0.2, "seed": 0}')
    parser.add_argument(
        "--output",
        type=file_path,
        required=True,
        help="folder for the raw files, or for a note that says where they are",
    )
    args = parser.parse_args()

    dataset: Dataset = plugins.load("dataset", plugin_of(args.dataset)).DATASET
    if dataset.named_folder != (args.folder is not None):
        verb = "needs" if dataset.named_folder else "has nothing to do with"
        raise UserError(f"--dataset {args.dataset} {verb} --folder")
    with files.folder_atomically(args.output) as scratch:
        if args.folder is not None:
            source = note_folder(args.folder, args.split, scratch)
        else:
            source = fetch(args.dataset, dataset.checksums, dataset.sources, args.search_path, scratch)
    print(f"{args.dataset}: from {source}")


if __name__ == "__main__":
    run_stage(main)
