"""Where everything lies: the one place that knows the paths of the workflow. It imports nothing heavy.

The rules of the workflow take patterns with wildcards from here, such as `FINETUNE.file(".json")`. Python code takes
concrete paths, such as `FINETUNE.path(results, experiment="quick", ...)`. Results lie below the folder that Snakemake
runs in. Everything that belongs to the project itself (scripts, environments, published numbers) lies in the clone,
which may be another folder.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from creditflow.core.gradients import of_folder

#: The folder of results, in the working directory.
RESULTS = Path("results")

#: The clone that this file belongs to.
CLONE = Path(__file__).resolve().parents[3]

_DATA = "data"
_EXPERIMENT = "{experiment}"
_MODEL = "{dataset}/{backbone}/{rule}"
_ATTACK = "{dataset}/{backbone}/{rule}/{attack}/{gradient}/seed{seed}"


@dataclass(frozen=True)
class Place:
    """Where one rule of the workflow puts the files of a job.

    The patterns hold wildcards in braces. All are relative to the working directory.
    """

    rule: str
    """Name of the rule, which is also its script's."""
    owner: str
    """Folder below the results: an experiment's, or `data`, which all experiments share."""
    stem: str
    """The job's files below that folder, without suffix."""
    logged: str
    """The job's log and benchmark below the folders of logs and benchmarks, without suffix."""

    def file(self, suffix: str = "") -> str:
        """Returns the pattern of a file, for a rule."""
        return f"{RESULTS}/{self.owner}/{self.stem}{suffix}"

    @property
    def log(self) -> str:
        """The pattern of the log."""
        return f"{RESULTS}/{self.owner}/logs/{self.logged}.log"

    @property
    def benchmark(self) -> str:
        """The pattern of Snakemake's benchmark: time and memory of the job."""
        return f"{RESULTS}/{self.owner}/benchmarks/{self.logged}.tsv"

    @property
    def checkpoint(self) -> str:
        """The pattern of the checkpoint, which is there only while the job is not done."""
        return f"{RESULTS}/{self.owner}/checkpoints/{self.stem}.checkpoint"

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        """What the end of a path of this place looks like; a group for each wildcard."""
        stem = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", f"{self.owner}/{self.stem}".replace(".", r"\."))
        return re.compile(f"(?:^|/){stem}$")

    def wildcards(self, path: Path) -> dict[str, str] | None:
        """Returns the wildcards of one job's file, from its path without suffix; None if it lies elsewhere."""
        match = self._expression.search(path.as_posix())
        return None if match is None else match.groupdict()

    def path(self, results: Path, suffix: str = "", **wildcards: object) -> Path:
        """Returns the path of one job's file below a folder of results. Raises KeyError for a missing wildcard."""
        return results / f"{self.owner}/{self.stem}{suffix}".format(**wildcards)


def _of_models(rule: str, folder: str, job: str) -> Place:
    """Returns the place of a rule whose log is called as its files are."""
    return Place(rule, _EXPERIMENT, f"{folder}/{job}", f"{folder}/{job}")


def _of_experiment(rule: str, stem: str, logged: str) -> Place:
    return Place(rule, _EXPERIMENT, stem, logged)


FETCH = Place("fetch", _DATA, "{source}/raw", "fetch/{source}")
PREPARE = Place("prepare", _DATA, "{source}/prepared", "prepare/{source}")
FETCH_WEIGHTS = Place("fetch_weights", _DATA, "weights/{backbone}/{weights}", "fetch_weights/{backbone}/{weights}")
PRETRAIN = _of_models("pretrain", "pretrain", "{backbone}/seed{seed}")
IMPORT_WEIGHTS = _of_experiment("import_weights", "pretrain/{backbone}/imported", "import_weights/{backbone}")
FINETUNE = _of_models("finetune", "finetune", f"{_MODEL}/seed{{seed}}")
TRAIN_POPULATION = _of_models("train_population", "population", _MODEL)
SELECT_MEMBER = _of_models("select_member", "member", f"{_MODEL}/seed{{seed}}")
IMPORT_MODEL = _of_models("import_model", "model", f"{_MODEL}/seed{{seed}}")
MEASURE_NULLSPACE = _of_models("measure_nullspace", "nullspace", "{rule}/seed{seed}")
EVALUATE = _of_models("evaluate", "evaluate", f"{_MODEL}/seed{{seed}}")
ATTACK = _of_models("attack", "attack", _ATTACK)
MEASURE_GRADIENTS = _of_models("measure_gradients", "why", f"{_MODEL}/{{gradient}}/seed{{seed}}")
ENCODE = _of_experiment("encode", f"codes/{_MODEL}/seed{{seed}}", f"encode/{_MODEL}/seed{{seed}}")
RETRIEVE = _of_models("retrieve", "retrieve", f"{_MODEL}/seed{{seed}}")
ATTACK_RETRIEVAL = _of_models("attack_retrieval", "attack_retrieval", _ATTACK)
COLLECT = _of_experiment("collect", "records", "collect")
SUMMARY = _of_experiment("collect", "summary", "collect")
AUDIT = _of_experiment("audit", "audit", "audit")
MAKE_TABLE = _of_experiment("make_table", "tables/{table}", "make_table/{table}")
PLOT_FIGURE = _of_experiment("plot_figure", "figures/{figure}", "plot_figure/{figure}")

PLACES = tuple(value for value in list(globals().values()) if isinstance(value, Place))

#: Names that no experiment may have: the results' folder of data, the workflow's rules, and the folders of an
#: experiment.
RESERVED = frozenset(
    {_DATA, "all", "prefetch"}
    | {place.rule for place in PLACES}
    | {place.stem.split("/")[0] for place in PLACES if place.owner == _EXPERIMENT and "/" in place.stem}
)

#: Suffixes of a trained model: its weights, its feedback state, and the description of both.
MODEL = (".safetensors", ".feedback.safetensors", ".json")
#: Suffixes of a population: its networks, and their description.
POPULATION = (".safetensors", ".json")
#: Suffixes of a record: itself, and the outcome of every image.
RECORD = (".json", ".safetensors")
#: Suffixes of a table and of a figure: their forms, and the seal of all of them.
TABLE = (".csv", ".md", ".tex", ".html", ".json")
FIGURE = (".pdf", ".svg", ".png", ".json")


def in_clone(path: str) -> Path:
    """Returns the path of a file of the project: relative where the working directory is the clone, else absolute.

    A relative path stays the same when a clone is moved, so that its results are not made again, and it is right in a
    container, in which the working directory has its place.
    """
    return Path(path) if Path.cwd().resolve() == CLONE else CLONE / path


def here_or_in_clone(path: str) -> Path:
    """Returns a path in the working directory if it exists there, else the clone's, as `in_clone` does."""
    return Path(path) if Path(path).exists() else in_clone(path)


def script(rule: str) -> str:
    """Returns the script of a rule."""
    return str(in_clone(f"src/{rule}.py"))


def records_list(experiment: str) -> Path:
    """Returns the file in which the workflow names all records of an experiment for the stages that read them."""
    return Path(".snakemake/creditflow") / f"{experiment}.records.txt"


#: The places of records, and the keys that a place implies.
_CLEAN = {"attack": "clean", "gradient": "none"}
_RECORDS: dict[Place, dict[str, str]] = {
    ATTACK: {"task": "classification"},
    ATTACK_RETRIEVAL: {"task": "retrieval"},
    MEASURE_GRADIENTS: {"task": "classification", "attack": "why"},
    EVALUATE: {"task": "classification"} | _CLEAN,
    RETRIEVE: {"task": "retrieval"} | _CLEAN,
    MEASURE_NULLSPACE: {"task": "regression"} | _CLEAN,
}


def record_keys(path: Path) -> dict[str, object] | None:
    """Returns the keys that a record has if it lies where the workflow puts it; None for a path elsewhere."""
    for place, implied in _RECORDS.items():
        if (wildcards := place.wildcards(path.with_suffix(""))) is not None:
            keys = wildcards | implied
            return {**keys, "seed": _number(keys["seed"]), "gradient": of_folder(keys["gradient"])}
    return None


def _number(text: str) -> object:
    return int(text) if text.isdecimal() else text
