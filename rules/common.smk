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

from creditflow.compute import gpus
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.reporting.sources import source_files
from creditflow.workflow import container as containers
from creditflow.workflow import experiments, failures, forkserver, locks, preflight
from creditflow.workflow.dependence import library_hash

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


IMAGE = containers.image_path(Path("containers"), Path("envs/requirements.txt"), config["container"]["flavour"])
preflight.bind_into_containers(config["data"]["search_paths"])


def check_machine():
    """Looks at what this run needs of the machine, before any job; a dry-run needs nothing."""
    if not workflow.is_main_process or COMMAND_LINE.dryrun:
        return
    if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
        explained(preflight.check_apptainer)
        explained(containers.check_image, IMAGE, config["container"]["flavour"])
    if COMMAND_LINE.executor == "slurm":
        explained(preflight.check_slurm, COMMAND_LINE.slurm_status_command)
        return  # it hands out the GPUs
    slots = workflow.global_resources.get("gpu")
    if slots and slots.value:
        explained(gpus.announce_slots, slots.value)


def share_start_up(jobs):
    """Has short stages forked from one process that has loaded their libraries, where jobs are this machine's and run outside containers."""
    elsewhere = workflow.deployment_settings.deployment_method or COMMAND_LINE.executor not in (None, "local")
    if elsewhere or workflow.touch or sys.platform != "linux" or Path(shell.get_executable() or "").name != "bash":
        return
    if sum(job.rule.name in forkserver.STAGES for job in jobs) >= forkserver.MIN_JOBS and (
        function := forkserver.start()
    ):
        shell.prefix(f"set -euo pipefail; {function}".replace("{", "{{").replace("}", "}}"))


def explain_failures(logs):
    """Says why jobs failed, after everything that Snakemake says."""
    for path in [logs] if isinstance(logs, (str, Path)) else logs or ():
        print(*failures.explain_failures(Path(path).read_text()), sep="\n", file=sys.stderr)


def one_of(names):
    """A wildcard constraint that admits just these names."""
    return "|".join(re.escape(name) for name in sorted(names)) or "(?!)"


def views():
    """Names of the dataset views of all experiments."""
    return {view for experiment in EXPERIMENTS.values() for view in experiment.keys["datasets"]}


def variants():
    """Names of the populations of all experiments."""
    return {
        variant
        for experiment in EXPERIMENTS.values()
        for variant in experiment.keys.get("population", {}).get("variants", {})
    }


def downloads(name):
    """What an experiment's jobs would read from the network: raw files of datasets, published weights."""
    experiment_keys = EXPERIMENTS[name].keys
    raw = sorted({f"results/data/{view['source']}/raw" for view in experiment_keys["datasets"].values()})
    pretrain = experiment_keys.get("pretrain", {})
    fetched = [
        backbone for backbone in experiment_keys.get("backbones", []) if backbone not in pretrain.get("files", {})
    ]
    return raw + [fetched_weights(backbone, pretrain) for backbone in fetched if "weights" in pretrain]


def fetched_weights(backbone, pretrain):
    """Where the published weights of a backbone lie once they are fetched."""
    return f"results/data/weights/{backbone}/{pretrain['weights']}.pth"


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


def inputs(wildcards):
    """What networks see of the images, as compact JSON."""
    return json.dumps(EXPERIMENTS[wildcards.experiment].input(wildcards.backbone), sort_keys=True)


def start(wildcards):
    """The model that a fine-tuning starts from, and its sidecar; nothing for a random start."""
    model = EXPERIMENTS[wildcards.experiment].pretrained(wildcards.backbone, int(wildcards.seed))
    return [] if model is None else [f"{RESULTS / model}.safetensors", f"{RESULTS / model}.json"]


def from_start(wildcards, input):
    """The option that says what a fine-tuning starts from."""
    return [f"--pretrained={path}" for path in input.start[:1]] or [f"--backbone={wildcards.backbone}"]


def weights_file(wildcards):
    """The published weights of a backbone: a local file, or the one that is fetched."""
    local = local_weights(wildcards)
    return local["path"] if local else fetched_weights(wildcards.backbone, keys(wildcards)["pretrain"])


def weights_sha256(wildcards):
    """The option that names the hash of a local file of weights; a fetched one has been verified."""
    local = local_weights(wildcards)
    return [f"--sha256={local['sha256']}"] if local else []


def local_weights(wildcards):
    """What the experiment says of a local file of weights; None without one."""
    return keys(wildcards)["pretrain"].get("files", {}).get(wildcards.backbone)


def trained(suffix):
    """A file of the trained model that is measured, as an input function."""

    def path(wildcards):
        return f"{EXPERIMENTS[wildcards.experiment].model(RESULTS, wildcards.dataset, wildcards.backbone, wildcards.rule, int(wildcards.seed))}{suffix}"

    return path


def population_settings(wildcards):
    """Settings of a population's training, as compact JSON."""
    return json.dumps(
        EXPERIMENTS[wildcards.experiment].population(wildcards.dataset, wildcards.backbone, wildcards.rule),
        sort_keys=True,
    )


def learning_rates(wildcards):
    """The learning rates of a population."""
    return keys(wildcards)["population"]["variants"][wildcards.backbone]["learning_rates"][wildcards.dataset][
        wildcards.rule
    ]


def population_seeds(wildcards):
    """The seeds of a population."""
    return EXPERIMENTS[wildcards.experiment].seeds_of(wildcards.backbone, wildcards.rule)


def finetune_settings(wildcards):
    """Settings of fine-tuning on the wildcards' dataset, as compact JSON."""
    return json.dumps(EXPERIMENTS[wildcards.experiment].training(wildcards.dataset), sort_keys=True)


def retrieval(wildcards):
    """The option that says what retrieval is; nothing for classification."""
    settings = EXPERIMENTS[wildcards.experiment].retrieval(wildcards.dataset)
    return [] if settings is None else ["--retrieval", json.dumps(settings, sort_keys=True)]


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
    twin, seed = EXPERIMENTS[wildcards.experiment].surrogate(wildcards.backbone, wildcards.rule, int(wildcards.seed))
    model = EXPERIMENTS[wildcards.experiment].model(RESULTS, wildcards.dataset, wildcards.backbone, twin, seed)
    return [f"{model}.safetensors", f"{model}.json"]


def source(kind):
    """What a table or figure shows: frames of the experiment, and the published numbers that its settings choose."""

    def paths(wildcards):
        experiment = EXPERIMENTS[wildcards.experiment]
        return [str(path) for path in explained(source_files, experiment, RESULTS, kind, wildcards[kind])]

    return paths


def library(stage, **uses):
    """A hash of the library's files that a stage's results depend on, for `params`: one word, where files would be many inputs a job.

    `uses` names the plugins that a job loads, by kind: names or wildcards, such as `rule="{rule}"`. See creditflow.workflow.dependence.
    """

    def hashed(wildcards):
        plugins_used = [(kind, name) for kind, names in uses.items() for name in names.format(**wildcards).split()]
        return library_hash(stage, plugins_used, leaving_out(stage, wildcards))

    return hashed


def leaving_out(stage, wildcards):
    """Folders of the library that a script could use, but does not for this job."""
    classifies = stage == "finetune" and "retrieval" not in keys(wildcards)
    return ("creditflow/retrieval",) if classifies else ()


def caption(kind):
    """A table's or figure's caption: the docstring of the file that defines it."""
    return lambda wildcards: " ".join(plugins.docstring(kind, wildcards[kind]).split())
