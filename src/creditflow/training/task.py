"""What a network is trained for: the loss, and what an epoch's history says beside it."""

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from creditflow.data.labels import cross_entropy, is_correct
from creditflow.data.prepared import Subset
from creditflow.training.accuracy import correct_predictions


class Task(nn.Module):
    """A loss; parameters of its own are trained along with the network, by their exact gradient."""

    #: Adam's step size for parameters of the task's own; None for that of the head.
    learning_rate: float | None = None

    @abstractmethod
    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of outputs (N, K)."""

    @abstractmethod
    def is_right(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns bool (N,), for the running accuracy of an epoch."""

    @abstractmethod
    def measure(self, network: nn.Module, data: Subset, test: Subset) -> Mapping[str, float]:
        """Returns what is measured after an epoch on training and test images; it influences nothing."""


class Classification(Task):
    """Cross-entropy (`targets`); an image is classified as its largest output says."""

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(outputs, labels)

    def is_right(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return is_correct(outputs, labels)

    def measure(self, network: nn.Module, data: Subset, test: Subset) -> Mapping[str, float]:
        return {"test_accuracy": float(correct_predictions(network, test).float().mean())}
