"""What a finished experiment left, for its export."""

from pathlib import Path

from creditflow.core.merging import in_order
from creditflow.reporting.finished import Finished
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.layout import record_keys
from creditflow.workflow.outputs import record_paths, trainings
from creditflow.workflow.sources import source_files


def finished(experiment: Experiment, results: Path) -> Finished:
    """Returns what is exported of an experiment. Raises UserError as `source_files` does."""
    shown = [(kind, name) for kind in ("table", "figure") for name in experiment.keys[f"{kind}s"]]
    return Finished(
        name=experiment.name,
        description=experiment.keys["description"],
        folder=results / experiment.name,
        # Keys are in the order in which stages get them, as columns of a table may follow this order.
        tables=in_order(experiment.keys["tables"]),
        figures=list(experiment.keys["figures"]),
        records=record_paths(experiment, results),
        sidecars=[path.with_suffix(".json") for path in trainings(experiment, results)],
        sources={(kind, name): source_files(experiment, results, kind, name) for kind, name in shown},
        keys_of=record_keys,
        audit=experiment.keys.get("audit"),
    )
