"""Make a pretrained model of published weights, or of a file of weights of the user's own.

The file is verified by its SHA-256 before it is read.
"""

from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core import files
from creditflow.models.storage import save_model
from creditflow.stages import importing
from creditflow.stages.command_line import run_stage


def main() -> None:
    args = importing.options(__doc__)
    device = use_device("cpu", 1)
    watch = Stopwatch(device)
    model, job = importing.imported(args)
    identity = {"stage": "import_weights", "experiment": args.experiment, "backbone": args.backbone}
    with files.only_one_writer(args.output):
        facts = {"settings": job, "provenance": provenance_of(job, device), "run": watch.run_facts()}
        save_model(args.output, model, identity=identity, **facts)
    print(f"{args.backbone}: {args.file} (SHA-256 {job['sha256'][:12]}...)")


if __name__ == "__main__":
    run_stage(main)
