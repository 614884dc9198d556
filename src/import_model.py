"""Take over a given model: make it by its factory, see that it fits the data, and check its backward pass.

An attack on a model whose backward pass is not the derivative of what it computes measures the wrong thing.
"""

from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core import files
from creditflow.core.given import GIVEN_MODELS
from creditflow.models.storage import save_model
from creditflow.stages import given, identity
from creditflow.stages.command_line import run_stage


def main() -> None:
    args = given.options(__doc__)
    device = use_device("cpu", args.threads)
    watch = Stopwatch(device)
    identity.check_data(args)
    model, factory, report = given.checked_model(args)
    job = given.job(args)
    filed = {"stage": "import_model", "experiment": args.experiment, "task": "classification"}
    filed |= {"dataset": identity.dataset_name(args), "backbone": GIVEN_MODELS, "rule": args.name, "seed": args.seed}
    facts = {"settings": job, "provenance": provenance_of(job, device), "run": watch.run_facts()}
    with files.only_one_writer(args.output):
        save_model(
            args.output,
            model,
            factory=factory,
            rule=args.name,
            identity=filed,
            seed=args.seed,
            gradient=given.plain_report(report.to_dict()),
            **facts,
        )
    print(f"{args.name}: {args.factory}\n{report}")


if __name__ == "__main__":
    run_stage(main)
