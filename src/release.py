"""Write the trained networks of finished experiments, with model cards and checksums, into one archive."""

import argparse
from pathlib import Path

import creditflow
from creditflow.reporting.release import Released, write_release
from creditflow.stages.command_line import existing_file, file_path, natural, run_stage, stage_parser
from creditflow.workflow.finished import finished
from creditflow.workflow.layout import CLONE
from creditflow.workflow.loading import load_experiment

ARCHIVE = Path(f"dist/creditflow-models-{creditflow.__version__}.tar")


def wanted_networks(text: str) -> tuple[str, list[int] | None]:
    """Reads NAME or NAME:SEED,SEED,...; a type for argparse."""
    name, colon, seeds = text.partition(":")
    return name, [natural(seed) for seed in seeds.split(",")] if colon else None


def archive_path(text: str) -> Path:
    """Reads the path of an archive; a type for argparse."""
    if not text.endswith(".tar"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .tar")
    return file_path(text)


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--networks",
        type=wanted_networks,
        nargs="+",
        default=[("quick", None), ("decade", [0])],
        metavar="EXPERIMENT[:SEED,...]",
        help="experiments, each with the seeds whose networks are released; all seeds if none is named",
    )
    parser.add_argument(
        "--experiments", type=existing_file, default=Path("config/experiments"), help="folder of experiments"
    )
    parser.add_argument("--results", type=existing_file, default=Path("results"), help="folder that holds the results")
    parser.add_argument("--output", type=archive_path, default=ARCHIVE, help="archive to write, a .tar")
    args = parser.parse_args()

    wanted = [
        Released(finished(load_experiment(args.experiments, name), args.results), seeds)
        for name, seeds in args.networks
    ]
    count = write_release(wanted, args.output, creditflow.__version__, CLONE / "LICENSE")
    print(f"{args.output}: {count} networks")


if __name__ == "__main__":
    run_stage(main)
