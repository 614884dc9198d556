"""Functions of the workflow. The science is in src/creditflow; here is only what depends on what."""

import json
import os
import re
import sys
from pathlib import Path

from snakemake.cli import get_argument_parser
from snakemake.settings.types import DeploymentMethod

# Stages run with the Python that runs Snakemake, also where its environment is not activated.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
# Whatever a library wants to cache stays in the working directory, in containers and outside.
for variable in ("XDG_CACHE_HOME", "TORCH_HOME", "MPLCONFIGDIR"):
    os.environ.update({variable: str(Path.cwd() / ".snakemake/cache" / variable.lower())})
sys.path.append(str(Path(workflow.basedir) / "src"))

from creditflow import experiments, image, locks, plugins
from creditflow.errors import UserError

SCHEMA = Path("config/schema.yaml")
RESULTS = Path("results")


# Snakemake looks at its targets only after this file; where it is not a command's main process, there is nothing to look at.
is_command = workflow.is_main_process and "snakemake" in Path(sys.argv[0]).parts[-2:]
COMMAND_LINE = get_argument_parser().parse_known_args(sys.argv[1:] if is_command else ["--dryrun"])[0]


def explained(function, *arguments):
    """Calls a function; a mistake of the user's ends the workflow in one line."""
    try:
        return function(*arguments)
    except UserError as error:
        # Not a WorkflowError: Snakemake would print the place in this file instead of just the message.
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if workflow.is_main_process:
    locks.release_dead_locks(Path.cwd())

EXPERIMENTS = explained(experiments.load_experiments, Path("config/experiments"), SCHEMA)
explained(experiments.check_workflow, config, EXPERIMENTS, SCHEMA)


IMAGE = image.image_path(Path("containers"), Path("envs/requirements.txt"), config["container"]["flavour"])
if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method and not COMMAND_LINE.dryrun:
    explained(image.check_image, IMAGE, config["container"]["flavour"])


def one_of(names):
    """A wildcard constraint that admits just these names."""
    return "|".join(re.escape(name) for name in sorted(names)) or "(?!)"


def views():
    """Names of the dataset views of all experiments."""
    return {view for experiment in EXPERIMENTS.values() for view in experiment.keys["datasets"]}


def check_targets():
    """Explains targets on the command line that nothing can make; Snakemake itself looks at them only later."""
    known = [rule.name for rule in workflow.rules]
    for target in COMMAND_LINE.targets or ():
        explained(experiments.check_target, target, EXPERIMENTS, known)


def products(name):
    """What an experiment is for: collected records, tables, figures."""
    return [str(path) for path in EXPERIMENTS[name].products(RESULTS)]


def records(wildcards):
    """All records of an experiment."""
    return [str(path) for path in EXPERIMENTS[wildcards.experiment].record_paths(RESULTS)]


def keys(wildcards):
    """The keys of the wildcards' experiment."""
    return EXPERIMENTS[wildcards.experiment].keys


def threads_of(wildcards):
    """CPU threads of a job."""
    return keys(wildcards)["threads"]


def search_paths(wildcards):
    """Options that name the folders to look for raw files in."""
    return [f"--search-path={path}" for path in config["data"]["search_paths"]]


def prepared(view):
    """The prepared dataset behind a view of it, as an input function; `view` is a name or gives one."""

    def path(wildcards):
        name = view(wildcards) if callable(view) else getattr(wildcards, view)
        return str(RESULTS / "data" / keys(wildcards)["datasets"][name]["source"] / "prepared.safetensors")

    return path


def pretrain_view(wildcards):
    """The view that an experiment pretrains on."""
    return keys(wildcards)["pretrain"]["dataset"]


def classes(view):
    """The option that chooses a view's classes, as a params function; `view` is a name or gives one."""

    def option(wildcards):
        name = view(wildcards) if callable(view) else getattr(wildcards, view)
        chosen = keys(wildcards)["datasets"][name].get("classes")
        return ["--classes", *map(str, chosen)] if chosen else []

    return option


def settings(*path):
    """The settings at a path of keys, as compact JSON; a part such as "{attack}" is a wildcard's value."""

    def compact(wildcards):
        value = keys(wildcards)
        for part in path:
            value = value.get(part.format(**wildcards), {})
        return json.dumps(value, sort_keys=True)

    return compact


def of_attack(key):
    """A value of the wildcards' attack."""
    return lambda wildcards: keys(wildcards)["attacks"][wildcards.attack][key]


def library(*parts):
    """Files of the library that a stage's results depend on, as an input function.

    A folder stands for its own files, without subfolders; a part such as "learning/rules/{rule}.py" is one file.
    """

    def found(wildcards):
        root = Path("src/creditflow")
        paths = [root / part.format(**wildcards) for part in parts]
        return [str(file) for path in paths for file in (sorted(path.glob("*.py")) if path.suffix == "" else [path])]

    return found


def caption(kind):
    """A table's or figure's caption: the docstring of the file that defines it."""
    return lambda wildcards: " ".join(plugins.docstring(kind, wildcards[kind]).split())
