"""What is asked of the workflow: its own configuration, and the targets of its command line."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from creditflow.core.errors import UserError, suggestion
from creditflow.core.settings import parse
from creditflow.workflow.experiments import Experiment, Experiments, find
from creditflow.workflow.outputs import all_files, user_files
from creditflow.workflow.workflow_model import WorkflowKeys


def check_workflow(config: Mapping[str, Any], experiments: Experiments) -> None:
    """Checks the workflow's own configuration. Raises UserError.

    The default experiment must be there; whether it is sound matters only when it is asked for (see `check_targets`).
    """
    parse(WorkflowKeys, config, "configuration")
    if config["default_experiment"] not in experiments.broken:
        find(experiments, config["default_experiment"], "configuration: default_experiment")


def check_targets(targets: Sequence[str], experiments: Experiments, rule_names: Sequence[str], default: str) -> None:
    """Checks the targets of a command line; without any, the default experiment is asked for. Raises UserError."""
    if not targets or "all" in targets:
        find(experiments, default, "configuration: default_experiment")
    for target in targets:
        check_target(target, experiments, rule_names)
    for name in dict.fromkeys(map(_experiment_of, targets or [default])):
        if (asked := default if name == "all" else name) in experiments:
            _check_user_files(experiments[asked])


def _experiment_of(target: str) -> str:
    """Returns the experiment that a target asks for; another word where it asks for none."""
    parts = Path(target).parts
    return parts[1] if len(parts) > 1 and parts[0] == "results" else target.removeprefix("prefetch_")


def _check_user_files(experiment: Experiment) -> None:
    """Raises UserError for a file or folder of the user's that is not there; Snakemake would say so in many lines."""
    for path, key in user_files(experiment).items():
        if not (path.is_dir() if key.startswith("datasets") else path.is_file()):
            what = "folder" if key.startswith("datasets") else "file"
            raise UserError(f"experiment {experiment.name}: {key}: there is no {what} {path}; name an existing one")


def check_target(target: str, experiments: Experiments, rule_names: Sequence[str]) -> None:
    """Explains a target that cannot be made, before Snakemake does so in general terms. Raises UserError."""
    path = Path(target)
    if path.suffix.lower() in _SUFFIXES:
        _explain_file(target, experiments, rule_names)
    if len(path.parts) == 1 and target not in rule_names:
        _explain_name(target, experiments, rule_names)
    if len(path.parts) < 2 or path.parts[0] != "results" or path.parts[1] == "data":
        return
    experiment = find(experiments, path.parts[1], target)
    known = {str(path) for path in all_files(experiment, Path("results"))}
    if str(path) not in known:
        close = get_close_matches(str(path), known, n=1, cutoff=0)
        raise UserError(
            f"{target}: experiment {experiment.name!r} makes no such file; the nearest it makes is {close[0]}"
        )


#: What files of experiments are called, rightly and by mistake.
_SUFFIXES = (".yaml", ".yml")


def _explain_file(target: str, experiments: Experiments, rule_names: Sequence[str]) -> None:
    """Raises UserError for the file of an experiment: rules are asked for, and no rule makes such a file."""
    name = Path(target).stem
    if name in experiments.broken:
        find(experiments, name)
    if name in experiments:
        raise UserError(f"{target!r} is the file of an experiment; ask for the experiment by its name, {name}")
    _explain_name(name, experiments, rule_names)


def _explain_name(target: str, experiments: Experiments, rule_names: Sequence[str]) -> None:
    """Raises UserError for a target that is one word and no rule's name."""
    name = target.removeprefix("prefetch_")
    if name in experiments.broken:
        find(experiments, name)
    known = sorted({*experiments, *experiments.broken, *rule_names})
    raise UserError(f"{target!r} is neither an experiment nor a rule{suggestion(target, known)}")
