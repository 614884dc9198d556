"""What a network is trained for: the images, the loss, and what the history of an epoch says beside the loss."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from creditflow.data.labels import cross_entropy, is_correct
from creditflow.data.prepared import Subset
from creditflow.training.accuracy import correct_predictions


@dataclass(frozen=True)
class TrainingData:
    """The images of one training run, on the device of the model.

    Attributes:
        train: the images that the network learns.
        test: images on which each epoch is measured; they have no influence on the training.
    """

    train: Subset
    test: Subset


class Task(nn.Module):
    """A loss. Its parameters, if it has any, are trained along with the network, by their exact gradient."""

    #: Adam's step size for the parameters of the loss; None for the step size of the head.
    learning_rate: float | None = None

    @abstractmethod
    def n_outputs(self, data: Subset) -> int:
        """Returns the number K of outputs that a network needs to be trained for this task on these images."""

    @abstractmethod
    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of outputs (N, K), a scalar."""

    @abstractmethod
    def is_right(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns bool (N,), which images are classified correctly, for the running accuracy of an epoch."""

    @abstractmethod
    def measure(self, network: nn.Module, data: Subset, test: Subset) -> Mapping[str, float]:
        """Returns what is measured after an epoch on training and test images; it has no influence on the training."""


class Classification(Task):
    """Cross-entropy, as `data.labels` defines it. The largest output says which class an image is taken for."""

    def n_outputs(self, data: Subset) -> int:
        return len(data.class_names)

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(outputs, labels)

    def is_right(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return is_correct(outputs, labels)

    def measure(self, network: nn.Module, data: Subset, test: Subset) -> Mapping[str, float]:
        return {"test_accuracy": float(correct_predictions(network, test).float().mean())}
