"""Settings of SAL."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from creditflow.core.settings import Many, SettingsModel

Pathway = Literal["w", "v", "w_bar", "v_bar"]

Rate = Annotated[float, Field(ge=0, le=1_000_000)]


class Settings(SettingsModel):
    """The descending stream, and the pathways W (up), V (up to down), Wb (down) and Vb (down to up)."""

    downstream: Many[Annotated[int, Field(ge=1, le=10_000_000)]] | None = None
    """Units of the descending stream at each hidden layer; as many as ascending ones if absent."""
    downstream_activation: Literal["identity", "relu_jacobian", "relu", "tanh"] = "identity"
    """D_k: identity (the paper's), relu_jacobian, which opens where V_k h_k > 0, or relu or tanh of Wb_k u_{k+1}."""
    upstream_mask: bool = False
    """Whether f'(z_k) multiplies what W_k learns from (D_u), as in Theorem 1; equation 5 has no mask."""
    rate_v: Rate = 1.0
    """Learning rate of V, in units of W's."""
    rate_w_bar: Rate = 1.0
    """Learning rate of Wb, in units of W's."""
    rate_v_bar: Rate = 1.0
    """Learning rate of Vb, in units of W's."""
    plastic: Many[Pathway] = ("w", "v", "w_bar", "v_bar")
    """Pathways that learn; w must be among them."""
    v_bar_learns_from: Literal["post", "pre"] = "post"
    """Vb learns from h_k (post), as in equation 8, or from z_k (pre), as in the paper's pseudo-code and equation 11."""
    scale: float = Field(1.0, ge=0, le=1_000_000)
    """Standard deviation of the initial V, Wb and Vb, in units of 1 / sqrt(n_in)."""
    modulation: Many[Annotated[float, Field(gt=0, le=1_000_000)]] = ()
    """Scales s at which each epoch measures the loss with h_k + s Vb_k u_k in hidden layers (section 2.3)."""

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if "w" not in self.plastic:
            raise ValueError("plastic must have w among its pathways, or nothing is learned; add w")
        return self

    def without_effect(self) -> Iterator[tuple[str, str]]:
        """Yields how pathways learn that do not learn."""
        for pathway, names in {
            "v": ["rate_v"],
            "w_bar": ["rate_w_bar"],
            "v_bar": ["rate_v_bar", "v_bar_learns_from"],
        }.items():
            if pathway not in self.plastic:
                yield from ((name, f"while {pathway} is not among plastic") for name in names)
