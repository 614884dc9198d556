"""Bring a dataset's raw files into the canonical form: uint8 images N,C,H,W and labels in one safetensors file."""

from pathlib import Path

from creditflow import plugins
from creditflow.cli import existing_file, run_stage, stage_parser
from creditflow.data.dataset import Dataset
from creditflow.data.prepared import save_prepared


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="id of a dataset (a file in src/creditflow/data/datasets)")
    parser.add_argument("--raw", type=existing_file, required=True, help="folder that fetch.py wrote")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    args = parser.parse_args()

    dataset: Dataset = plugins.load("dataset", args.dataset).DATASET
    splits = dataset.read(args.raw)
    save_prepared(args.output, splits, dataset.class_names)
    print(f"{args.dataset}: " + ", ".join(f"{len(labels)} {name} images" for name, (_, labels) in splits.items()))


if __name__ == "__main__":
    run_stage(main)
