"""Settings of retrieval: the protocol, the length of codes, the ranking and the loss."""

from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from creditflow.core.errors import UserError
from creditflow.core.settings import SettingsModel
from creditflow.retrieval.zeta import zeta


class Protocol(SettingsModel):
    """How a dataset is divided into training images, queries and database.

    The draw is the same for all models, so that their results can be compared query by query.
    """

    kind: Literal["per_class", "random", "lists"]
    """`per_class` draws so many images of each class and `random` so many of all images; `lists` takes the dataset's
    own train, test and database splits."""
    query: int | None = Field(None, ge=1, le=10_000_000)
    """Number of queries, per class or in all; not for `lists`."""
    train: int | None = Field(None, ge=1, le=10_000_000)
    """Number of training images, per class or in all; not for `lists`."""
    query_from: Literal["pool", "test"] = "pool"
    """Where queries are drawn from: `pool` is all images, `test` the test split, which no pretraining has seen."""
    train_in_database: bool = False
    """Whether training images are in the database. Queries never are."""

    @model_validator(mode="after")
    def _draws_or_lists(self) -> Self:
        said = [name for name in ("query", "train") if getattr(self, name) is not None]
        if self.kind != "lists" and len(said) < 2:
            raise ValueError("say how many images to draw: query and train")
        if "query_from" in self.model_fields_set:
            said.append("query_from")
        if self.kind == "lists" and said:
            raise ValueError(f"lists draw nothing; take {said[0]} away")
        return self


class HyP2Settings(SettingsModel):
    """Parameters of the HyP2 loss (Xu et al., MM 2022)."""

    beta: float = Field(0.5, ge=0, le=1_000_000)
    """Weight of the pair term."""
    variant: Literal["official", "h2q"] = "official"
    """`official` is the authors' code, where only images of two labels or more make pairs, so that there is no pair
    term where each image has one label. `h2q` is Schwengber et al. (2023), where all images make pairs and proxies go
    through tanh."""
    zeta: float | None = Field(None, ge=-1, lt=1)
    """Margin, a cosine; it follows from the numbers of bits and classes if absent."""


class CodeSettings(SettingsModel):
    """What all datasets of an experiment have in common: codes, ranking and loss."""

    loss: HyP2Settings = HyP2Settings()
    """The HyP2 loss."""
    bits: int = Field(ge=1, le=65_536)
    """Length K of codes, in bits."""
    top: int = Field(ge=1, le=1_000_000_000)
    """k of mAP@k: how many items of the ranking count."""
    proxy_learning_rate: float | None = Field(None, gt=0, le=100)
    """Adam's step size for the proxies of the loss; that of the hash layer if absent."""

    @field_validator("bits")
    @classmethod
    def _has_a_margin(cls, bits: int, info: ValidationInfo) -> int:
        if "loss" in info.data and info.data["loss"].zeta is None:
            try:
                zeta(bits, 2)  # the number of classes is known once the data is there
            except UserError as error:
                raise ValueError(str(error)) from None
        return bits


class RetrievalSettings(CodeSettings):
    """Parameters of retrieval on one dataset, as stages are told them in one JSON object."""

    protocol: Protocol
    """How the dataset is divided."""
