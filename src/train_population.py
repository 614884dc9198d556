"""Train a population: one network for each seed and learning rate, under one update rule, all in one job."""

from creditflow.compute import matmul
from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch
from creditflow.stages.command_line import run_stage
from creditflow.stages.populations import population_parser, train_population_stage


def main() -> None:
    args = population_parser(__doc__).parse_args()
    device = use_device(args.device, args.threads)
    matmul.use_faster_matmul()
    train_population_stage(args, Stopwatch(device))


if __name__ == "__main__":
    run_stage(main)
