"""The task of training for retrieval: its loss, and what is measured after an epoch."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from creditflow.data.labels import is_correct
from creditflow.data.prepared import Subset
from creditflow.retrieval.codes import encode
from creditflow.retrieval.hyp2 import HyP2
from creditflow.retrieval.ranking import mean_average_precision
from creditflow.training.task import Task


class Retrieval(Task):
    """Training with the HyP2 loss. An image gets the class of the nearest proxy.

    After an epoch the test images, which are the queries, are searched for among the training images, which is quicker
    than a search in the database.
    """

    def __init__(self, loss: HyP2, top: int, learning_rate: float | None) -> None:
        """`top` is k of mAP@k; `learning_rate` is that of the proxies, None for that of the hash layer."""
        super().__init__()
        self.loss, self._top, self.learning_rate = loss, top, learning_rate

    def n_outputs(self, data: Subset) -> int:
        return self.loss.proxies.shape[1]

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        value: Tensor = self.loss(outputs, labels)
        return value

    @torch.no_grad()
    def is_right(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return is_correct(self.loss.cosines(outputs.float()), labels)

    def measure(self, network: nn.Module, data: Subset, test: Subset) -> Mapping[str, float]:
        queries, database = (encode(network, part) for part in (test, data))
        return {"test_map": mean_average_precision(queries, test.labels.cpu(), database, data.labels.cpu(), self._top)}
