"""What the rules call: for a job's wildcards, its inputs and parameters. The science is in src/creditflow."""

from creditflow.core import files, plugins
from creditflow.core.merging import compact_json
from creditflow.data.image_folders import plugin_of, source_id, state_of
from creditflow.workflow import outputs
from creditflow.workflow.dependence import library_hash
from creditflow.workflow.layout import RESULTS
from creditflow.workflow.loading import load_experiments
from creditflow.workflow.once import once_for_all, once_per
from creditflow.workflow.requests import check_workflow
from creditflow.workflow.session import explained

EXPERIMENTS = explained(load_experiments, layout.here_or_in_clone("config/experiments"))
explained(check_workflow, config, EXPERIMENTS)
#: The wildcards of a model.
MODEL = ("experiment", "dataset", "backbone", "rule", "seed")

config["data"]["search_paths"] = [str(files.as_path(path)) for path in config["data"]["search_paths"]]


def wanted(name):
    """What an experiment's target asks for; nothing of a broken one, which `check_targets` explains."""
    return list(map(str, outputs.wanted(EXPERIMENTS[name], RESULTS))) if name in EXPERIMENTS else []


def downloads(name):
    """What an experiment's jobs would read from the network; nothing of a broken one."""
    return list(map(str, outputs.downloads(EXPERIMENTS[name], RESULTS))) if name in EXPERIMENTS else []


def experiment(wildcards):
    """The wildcards' experiment."""
    return EXPERIMENTS[wildcards.experiment]


def keys(wildcards):
    """The keys of the wildcards' experiment."""
    return experiment(wildcards).keys


def model_of(wildcards):
    """Dataset, network, rule and seed of a model."""
    return wildcards.dataset, wildcards.backbone, wildcards.rule, int(wildcards.seed)


def compact(value):
    """A value as compact JSON, for the command line."""
    return compact_json(value)


def threads_of(wildcards):
    """CPU threads of a job."""
    return keys(wildcards)["threads"]


def search_paths(wildcards):
    """Options that name the folders to look for raw files in."""
    return [f"--search-path={path}" for path in config["data"]["search_paths"]]


def view_keys(view, wildcards):
    """The keys of a view of a dataset; `view` is the wildcard that names it, or a function that gives its name."""
    return keys(wildcards)["datasets"][view(wildcards) if callable(view) else wildcards[view]]


def once_per_view(view):
    """Has a function of wildcards called once for each view of each experiment; `view` is as in `view_keys`."""
    return once_per("experiment", *([] if callable(view) else [view]))


def prepared(view):
    """The prepared dataset behind a view of it, as an input function."""
    path = layout.PREPARE.file(".safetensors")
    return once_per_view(view)(lambda wildcards: path.format(source=source_id(view_keys(view, wildcards))))


def folder_of(wildcards):
    """The keys of the folder of images that a source is; nothing for other datasets."""
    views = (view for each in EXPERIMENTS.values() for view in each.keys["datasets"].values())
    view = next((view for view in views if source_id(view) == wildcards.source), {})
    return {key: view[key] for key in ("path", "split") if key in view}


def folder_options(wildcards):
    """The options that name a folder of images, and say how it is split."""
    folder = folder_of(wildcards)
    split = ["--split", compact(folder["split"])] if "split" in folder else []
    return ["--folder", folder["path"], *split] if folder else []


def folder_state(wildcards):
    """A hash of the names, sizes and times of a folder's images: what has changed is fetched and prepared again."""
    folder = folder_of(wildcards)
    return state_of(folder["path"]) if folder else ""


@once_per("experiment", "backbone")
def inputs(wildcards):
    """What networks see of the images, as compact JSON."""
    return compact(experiment(wildcards).input(wildcards.backbone))


@once_per(*MODEL)
def model_path(wildcards):
    """The model that is measured, without suffix."""
    return str(outputs.model(experiment(wildcards), RESULTS, model_of(wildcards)))


def trained(suffix):
    """A file of the model that is measured, as an input function."""
    return lambda wildcards: f"{model_path(wildcards)}{suffix}"


def population_settings(wildcards):
    """Settings of a population's training, as compact JSON."""
    return compact(experiment(wildcards).population(wildcards.dataset, wildcards.backbone, wildcards.rule))


def learning_rates(wildcards):
    """The learning rates of a population."""
    variant = keys(wildcards)["population"]["variants"][wildcards.backbone]
    return variant["learning_rates"][wildcards.dataset][wildcards.rule]


def population_seeds(wildcards):
    """The seeds of a population."""
    return experiment(wildcards).seeds_of(wildcards.backbone, wildcards.rule)


@once_per("experiment", "dataset")
def finetune_settings(wildcards):
    """Settings of fine-tuning on the wildcards' dataset, as compact JSON."""
    return compact(experiment(wildcards).training(wildcards.dataset))


@once_per("experiment", "dataset")
def retrieval(wildcards):
    """The option that says what retrieval is; nothing for classification."""
    values = experiment(wildcards).retrieval(wildcards.dataset)
    return [] if values is None else ["--retrieval", compact(values)]


def pretrain_view(wildcards):
    """The view that an experiment pretrains on."""
    return keys(wildcards)["pretrain"]["dataset"]


def classes(view):
    """The option that chooses a view's classes, as a params function."""

    @once_per_view(view)
    def option(wildcards):
        chosen = view_keys(view, wildcards).get("classes")
        return ["--classes", *map(str, chosen)] if chosen else []

    return option


def settings(*path):
    """The settings at a path of keys, as compact JSON; a part such as "{attack}" is a wildcard's value."""

    def option(wildcards):
        value = keys(wildcards)
        for part in path:
            value = value.get(part.format(**wildcards), {})
        return compact(value)

    return option


def library(stage, **uses):
    """A hash of the library's files that a stage's results depend on, for `params`.

    `uses` names the plugins that a job loads, by kind: names or wildcards, such as `rule="{rule}"`. `{feedback_rule}`
    stands for the rule whose feedback weights an attacker uses, and for nothing without them; `{dataset_file}` for the
    dataset whose file reads a source.
    """

    @once_for_all("seed")
    def hashed(wildcards):
        given = {**wildcards, "feedback_rule": feedback_rule(wildcards), "training_rule": training_rule(wildcards)}
        given["dataset_file"] = plugin_of(wildcards.get("source", ""))
        loaded = [(kind, name) for kind, names in uses.items() for name in names.format(**given).split()]
        classifies = stage == "finetune" and "retrieval" not in keys(wildcards)
        return library_hash(stage, loaded, ("creditflow/retrieval/",) if classifies else ())

    return hashed
