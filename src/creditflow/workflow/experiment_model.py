"""What an experiment may say: the keys of config/experiments/<name>.yaml, their ranges and their meaning.

Rules of one section stand here; what refers to other sections, or to files, is in `consistency`. Settings of
plugins (attacks, tables, figures, rules) are described in the plugins' own files, and `plugin_settings` checks them.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from creditflow.core.parts import part_of
from creditflow.core.settings import Many
from creditflow.data.settings import InputSettings, SplitSettings
from creditflow.populations.nullspace_settings import NullspaceSettings
from creditflow.populations.settings import PopulationSettings
from creditflow.retrieval.settings import CodeSettings, Protocol
from creditflow.training.settings import FinetuningSettings, TrainingSettings
from creditflow.workflow.attack_model import AttackKeys, Audit, Why
from creditflow.workflow.given_models import Models, checked_factory
from creditflow.workflow.key_types import ONCE, Gradients, Name, Names, Section, Seeds

Class = Annotated[int, Field(ge=0, le=10_000_000)]

LearningRate = Annotated[float, Field(gt=0, le=100)]

LearningRates = Annotated[Many[LearningRate], Field(min_length=1), ONCE]

TopK = Annotated[int, Field(ge=1, le=1_000_000_000)]


_TrainingPart = part_of(FinetuningSettings)
_PopulationPart = part_of(PopulationSettings)


class View(Section):
    """A view of a dataset: all of it, or some of its classes."""

    source: Name
    """Id of a dataset: a file in src/creditflow/data/datasets."""
    classes: Annotated[Many[Class], Field(min_length=2), ONCE] | None = None
    """Labels to keep, which are renumbered in this order; all if absent."""
    path: Annotated[str, Field(min_length=1)] | None = None
    """Of `image_folder`: the folder with `train` and `test`, and a folder for each class in both. `~` and `$VAR` mean
    what they mean in a shell."""
    split: SplitSettings | None = None
    """Of `image_folder`: how images are split where the folder has just a folder for each class."""


class Input(InputSettings):
    """What networks see of the images."""

    backbones: dict[str, InputSettings] = Field(default_factory=dict)
    """What differs for some backbones, by their ids."""


class LocalWeights(Section):
    """A file of weights that is there already."""

    path: str = Field(min_length=1)
    """Where the file lies; `~` and `$VAR` mean what they mean in a shell."""
    sha256: str = Field(pattern=r"^[0-9a-f]{8,64}$")
    """SHA-256 of the file in hexadecimal digits; the first 8 or more."""
    factory: Annotated[str, AfterValidator(checked_factory)] | None = None
    """Of the backbone `from_factory`: what makes the network of these weights, such as `my_model.py:make_model` or
    `torchvision:resnet18`. It takes pixels in [0, 1] and ends with a Linear."""


class Pretrain(Section):
    """Where fine-tuning starts. Give exactly one of `dataset` (with `settings`), `weights`, `files`, `experiment` and
    `start`; `files` may stand beside `weights`, too."""

    dataset: Name | None = None
    """A name from `datasets`: backpropagation trains on it from a random start, once for each backbone and seed."""
    settings: TrainingSettings | None = None
    """Settings of that training."""
    weights: Annotated[str, Field(pattern=r"^[A-Z0-9_]+$", max_length=100)] | None = None
    """Name of published weights, such as IMAGENET1K_V1, which torchvision has for its networks and a Python package for
    `efficientnet_lite0`."""
    files: dict[str, LocalWeights] = Field(default_factory=dict)
    """Files of weights by backbone. Beside `weights`: where published weights lie, which are then not fetched. Without
    `weights`: what every backbone starts from, which may be weights of your own."""
    experiment: Name | None = None
    """Name of another experiment, whose pretrained models are used."""
    start: Literal["random"] | None = None
    """`random`: no pretraining."""


class Finetune(Section):
    """Training of all parameters and a fresh head, once for each dataset, backbone, rule and seed."""

    datasets: Names
    """Names from `datasets`."""
    settings: FinetuningSettings
    """Settings of the training."""
    overrides: dict[str, _TrainingPart] = Field(default_factory=dict)  # type: ignore[valid-type]
    """Settings that differ for some datasets, by the names of the datasets."""
    matched: Names | None = None
    """Rules for which a further network `bp_matched_<rule>` is trained and attacked: backpropagation from the same
    start, which stops as soon as its clean accuracy is that of the rule's network."""
    head_only: bool = False
    """Whether a further network `bp_head_only` is trained and attacked, a control: only its head is trained, and the
    backbone stays what it was at the start."""


class Retrieval(CodeSettings):
    """Makes the task image retrieval: the head gives hash codes, which are searched for in a database.

    `attacks` are then ids of files in src/creditflow/attacks/hashing, and their `images` are queries.
    """

    tops: dict[str, TopK] = Field(default_factory=dict)
    """k of mAP@k for datasets that have another one, by their names."""
    protocols: dict[str, Protocol]
    """Training images, queries and database of each dataset of `finetune`, by the names of the datasets."""


class _DatasetPart(_PopulationPart):  # type: ignore[misc, valid-type]
    rules: dict[Name, _PopulationPart] = Field(default_factory=dict)  # type: ignore[valid-type]
    """What differs for some rules, by their ids."""


class PopulationPart(_DatasetPart):
    """Settings of a population's training. A variant's settings are merged with the common ones."""

    datasets: dict[Name, _DatasetPart] = Field(default_factory=dict)
    """What differs for some datasets, by their names; it may have `rules` in turn."""


class PublishedChoice(Section):
    """Rows of a file in config/hyperparameters: the learning rate and settings of each rule."""

    file: str = Field(min_length=1, max_length=100)
    """Name of the file, without .csv."""
    table: str
    """What its column `table` says."""
    row: str
    """What its column `dataset` says."""
    variant: str = ""
    """What its column `variant` says."""
    dataset: Name
    """A name from `datasets`, on which these hyper-parameters are used."""


class Variant(Section):
    """One way to train the network. It needs `learning_rates` or `hyperparameters`."""

    settings: PopulationPart = PopulationPart()
    """What differs from the common settings."""
    hyperparameters: Annotated[Many[PublishedChoice], Field(min_length=1)] | None = None
    """Published hyper-parameters, from files of config/hyperparameters. What the variant says itself counts more."""
    seeds: Seeds | None = None
    """Some of the experiment's `seeds`; all if absent."""
    rule_seeds: Annotated[dict[str, Seeds], Field(min_length=1)] | None = None
    """By rule, some of these seeds, for rules that cost too much. They are compared with backpropagation's models
    of the same seeds."""
    learning_rates: (
        Annotated[dict[str, Annotated[dict[str, LearningRates], Field(min_length=1)]], Field(min_length=1)] | None
    ) = None
    """By dataset and rule: each of them is trained with every seed, and the best is measured."""

    @model_validator(mode="after")
    def _has_learning_rates(self) -> Self:
        if self.learning_rates is None and self.hyperparameters is None:
            raise ValueError("learning_rates is missing (or `hyperparameters`, for published ones)")
        return self


class Population(Section):
    """In place of `backbones`, `pretrain` and `finetune`: small networks, trained many at a time from random starts.

    A variant stands where a backbone stands elsewhere, and `rules` are ids of files in
    src/creditflow/populations/rules.
    """

    datasets: Names
    """Names from `datasets`."""
    settings: PopulationPart
    """What all variants have in common."""
    variants: dict[Name, Variant] = Field(min_length=1)
    """Ways to train the network, by name."""


class ExperimentKeys(Section):
    """What an experiment computes."""

    extends: Name | None = None
    """Name of an experiment whose keys hold where this one has none. Mappings are merged, lists are replaced, and
    what is null is taken away."""
    description: str = Field(min_length=1, max_length=1000)
    """One line for the report."""
    datasets: dict[Name, View] = Field(min_length=1)
    """Named views of datasets. One that no other section names is only fetched."""
    input: Input = Input()
    """What networks see of the images."""
    backbones: Names | None = None
    """Ids of files in src/creditflow/models/backbones."""
    pretrain: Pretrain | None = None
    """Where fine-tuning starts."""
    finetune: Finetune | None = None
    """Training with each rule."""
    retrieval: Retrieval | None = None
    """Makes the task image retrieval."""
    population: Population | None = None
    """Small networks that are trained many at a time, in place of `backbones`, `pretrain` and `finetune`."""
    models: Models | None = None
    """Networks that are there already, in place of `backbones`, `pretrain`, `finetune` and `rules`: a name stands where
    a rule stands elsewhere. They are measured on all `datasets`."""
    rules: Names | None = None
    """Ids of files in src/creditflow/feedback/rules, or in src/creditflow/populations/rules for a population."""
    seeds: Seeds
    """Each seed is one whole chain from random start to attack."""
    threads: int = Field(ge=1, le=4096)
    """CPU threads of a job. The last bits of results depend on it."""
    gradients: Gradients
    """What the attacker differentiates. `exact` is the network itself. `own` is whatever the backward pass of one of
    the `models` gives. `feedback` goes through the feedback weights of the network's training. `through:<rule>` goes
    through fresh feedback weights of a rule; `through:<rule>:2` and so on go through further draws of them."""
    attacks: dict[Name, AttackKeys]
    """Attacks, by the id of a file in src/creditflow/attacks/methods, or in src/creditflow/attacks/hashing for
    retrieval."""
    nullspace: Annotated[dict[Name, NullspaceSettings], Field(min_length=1)] | None = None
    """Update rules whose updates' share in the null space is measured on a toy regression, with each seed, and how."""
    why: Why | None = None
    """Measures on fixed images why attacks through some gradients fail."""
    audit: Audit | None = None
    """Comparison of each rule with backpropagation, or of each of the `models` with the reference."""
    tables: dict[Name, dict[Any, Any]]
    """Tables and their settings, by the id of a file in src/creditflow/reporting/tables."""
    figures: dict[Name, dict[Any, Any]]
    """Figures and their settings, by the id of a file in src/creditflow/reporting/figures."""
