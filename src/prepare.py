"""Bring a dataset's raw files into the canonical form: one safetensors file of labels and images (or file names)."""

import torch

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.data.dataset import Dataset
from creditflow.data.image_folders import plugin_of
from creditflow.data.origin import check_origin
from creditflow.data.packing import packed
from creditflow.data.prepared import save_prepared
from creditflow.data.readable import check_share, describe, drop_unreadable
from creditflow.data.splits import check_splits
from creditflow.stages.command_line import existing_file, file_path, run_stage, share, stage_parser, thread_count


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="id of a dataset (a file in src/creditflow/data/datasets)")
    parser.add_argument("--raw", type=existing_file, required=True, help="folder that fetch.py wrote")
    parser.add_argument("--output", type=file_path, required=True, help="safetensors file to write")
    parser.add_argument(
        "--max-unreadable", type=share, default=0.001, help="share of a split's image files that may be unreadable"
    )
    parser.add_argument("--threads", type=thread_count, default=1, help="CPU threads that look at image files")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    dataset: Dataset = plugins.load("dataset", plugin_of(args.dataset)).DATASET
    check_origin(args.raw, args.dataset, dataset.checksums)
    names = dataset.class_names(args.raw) if callable(dataset.class_names) else dataset.class_names
    splits = dataset.read(args.raw)
    check_splits(splits, names)  # before the hours that looking at all files of a large dataset may take
    if any(dataset.multi_label != (labels.ndim == 2) for _, labels in splits.values()):
        raise UserError(
            f"{args.dataset}: its file says multi_label={dataset.multi_label}, but its labels have the shape for"
            f" {not dataset.multi_label}; change one of them"
        )
    splits, unreadable = drop_unreadable(args.dataset, splits, args.threads)
    for split, (_, labels) in splits.items():
        reasons = unreadable.get(split, {})
        print(f"{args.dataset}: {len(labels)} {split} images", *describe(reasons), sep="\n")
        check_share(args.dataset, split, len(labels), reasons, args.max_unreadable)
    if dataset.named_folder:
        splits = packed(splits, args.threads)
    left_out = {split: list(reasons) for split, reasons in unreadable.items()}
    save_prepared(args.output, splits, names, left_out, args.dataset)


if __name__ == "__main__":
    run_stage(main)
