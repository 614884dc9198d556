"""Functions of the workflow. The science is in src/creditflow; here is only what depends on what."""

import json
import os
import re
import sys
from pathlib import Path

import snakemake.benchmark
from snakemake.cli import get_argument_parser
from snakemake.settings.types import DeploymentMethod

# Stages run with the Python that runs Snakemake, also where its environment is not activated.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
# Whatever a library wants to cache stays in the working directory, in containers and outside.
for variable in ("XDG_CACHE_HOME", "TORCH_HOME", "MPLCONFIGDIR"):
    os.environ.update({variable: str(Path.cwd() / ".snakemake/cache" / variable.lower())})
# Snakemake reads a young job's memory map twice a second, which slows short jobs down; records hold time and memory anyway.
snakemake.benchmark.BENCHMARK_INTERVAL_SHORT = 2
sys.path.append(str(Path(workflow.basedir) / "src"))

from creditflow import diagnosis, experiments, gpus, image, locks, plugins, preflight
from creditflow.errors import UserError

SCHEMA = Path("config/schema.yaml")
RESULTS = Path("results")


def command_line():
    """The options that this Snakemake runs with, its profile's among them; a dry-run's where it is not a command's main process.

    Snakemake itself looks at targets and executor only after this file.
    """
    if not (workflow.is_main_process and "snakemake" in Path(sys.argv[0]).parts[-2:]):
        return get_argument_parser().parse_known_args(["--dryrun"])[0]
    given = get_argument_parser().parse_known_args(sys.argv[1:])[0]
    of_workflow = given.workflow_profile or "default"
    found = [str(path) for path in (Path(of_workflow), Path("profiles", of_workflow)) if path.exists()]
    return get_argument_parser([*(given.profile or []), *found[:1]]).parse_known_args(sys.argv[1:])[0]


COMMAND_LINE = command_line()


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
preflight.bind_into_containers(config["data"]["search_paths"])


def check_machine():
    """Looks at what this run needs of the machine, before any job; a dry-run needs nothing."""
    if not workflow.is_main_process or COMMAND_LINE.dryrun:
        return
    if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
        explained(preflight.check_apptainer)
        explained(image.check_image, IMAGE, config["container"]["flavour"])
    if COMMAND_LINE.executor == "slurm":
        explained(preflight.check_slurm, COMMAND_LINE.slurm_status_command)
        return  # it hands out the GPUs
    slots = workflow.global_resources.get("gpu")
    if slots and slots.value:
        explained(gpus.announce_slots, slots.value)


def explain_failures(logs):
    """Says why jobs failed, after everything that Snakemake says."""
    for path in [logs] if isinstance(logs, (str, Path)) else logs or ():
        print(*diagnosis.explain_failures(Path(path).read_text()), sep="\n", file=sys.stderr)


def one_of(names):
    """A wildcard constraint that admits just these names."""
    return "|".join(re.escape(name) for name in sorted(names)) or "(?!)"


def views():
    """Names of the dataset views of all experiments."""
    return {view for experiment in EXPERIMENTS.values() for view in experiment.keys["datasets"]}


def sources():
    """Names of the datasets that experiments use."""
    return sorted({view["source"] for experiment in EXPERIMENTS.values() for view in experiment.keys["datasets"].values()})


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


def surrogate(wildcards):
    """The model that a transfer attack makes its images with, and its sidecar; nothing for other attacks."""
    if not plugins.declared("attack", wildcards.attack, "uses_surrogate", False):
        return []
    twin, seed = EXPERIMENTS[wildcards.experiment].surrogate(wildcards.rule, int(wildcards.seed))
    model = f"results/{wildcards.experiment}/finetune/{wildcards.dataset}/{wildcards.backbone}/{twin}/seed{seed}"
    return [f"{model}.safetensors", f"{model}.json"]


def source(kind):
    """What a table or figure shows: the experiment's summary, its audit, or published numbers."""

    def path(wildcards):
        frame = plugins.declared(kind, wildcards[kind], "source", "summary")
        return "config/published/sign_symmetry.csv" if frame == "published" else f"results/{wildcards.experiment}/{frame}.parquet"

    return path


def library(*parts):
    """Files of the library that a stage's results depend on, as an input function.

    A folder stands for its own files, without subfolders; a part such as "learning/rules/{rule}.py" is one file, and
    those in its folder that it imports.
    """

    def found(wildcards):
        root = Path("src/creditflow")
        paths = [root / part.format(**wildcards) for part in parts]
        return [
            str(file) for path in paths for file in (sorted(path.glob("*.py")) if path.suffix == "" else plugins.with_imports_beside(path))
        ]

    return found


def caption(kind):
    """A table's or figure's caption: the docstring of the file that defines it."""
    return lambda wildcards: " ".join(plugins.docstring(kind, wildcards[kind]).split())
