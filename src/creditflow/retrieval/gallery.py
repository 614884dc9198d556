"""Small pictures of some queries, clean and attacked, and of the items that are found for them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from creditflow.data.prepared import Subset
from creditflow.retrieval.ranking import nearest
from creditflow.retrieval.storage import Encoded

#: How many of the items found for a query are shown, and the height and width to which larger pictures are reduced.
N_FOUND, _SIZE = 10, 64


def gallery(
    queries: Subset,
    items: Subset,
    chosen: Tensor,
    attacked: Tensor,
    clean_codes: Encoded,
    attacked_codes: Encoded,
    database: Encoded,
) -> dict[str, Tensor]:
    """Returns pictures of queries and of the items found for them, their labels, and whether the two share a label.

    The pictures are uint8: `clean_query` and `attacked_query` (n, C, h, w), `clean_found` and `attacked_found`
    (n, 10, C, h, w). `clean_relevant` and `attacked_relevant` are bool (n, 10). The labels are `query_labels` (n,),
    `clean_found_labels` and `attacked_found_labels` (n, 10), with one more dimension where an image may have several.

    Args:
        queries, items: images of the queries and of the database.
        chosen: indices (n,) of the queries that are shown.
        attacked: their perturbed images (n, C, H, W).
        clean_codes, attacked_codes: their codes and labels.
        database: codes and labels of `items`.
    """
    shown = {"clean_query": _small(queries.batch(chosen)[0]), "attacked_query": _small(attacked)}
    shown["query_labels"] = clean_codes.labels
    for name, codes in (("clean", clean_codes), ("attacked", attacked_codes)):
        places = nearest(codes.codes, database.codes, N_FOUND)
        pictures = _small(items.batch(places.flatten())[0])
        shown[f"{name}_found"] = pictures.view(*places.shape, *pictures.shape[1:])
        labels = database.labels[places]
        shown[f"{name}_found_labels"] = labels
        same = labels == codes.labels[:, None] if labels.dim() == 2 else (labels * codes.labels[:, None]).sum(2) > 0
        shown[f"{name}_relevant"] = same
    return shown


def _small(images: Tensor) -> Tensor:
    images = images.detach().cpu()
    if max(images.shape[2:]) > _SIZE:
        images = F.interpolate(images, (_SIZE, _SIZE), mode="area")
    return (255 * images).round().to(torch.uint8)
