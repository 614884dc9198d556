"""Small pictures of some queries, clean and attacked, and of what is found for them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from creditflow.data.prepared import Subset
from creditflow.retrieval.ranking import nearest
from creditflow.retrieval.storage import Encoded

#: Images found for a query that are shown, and the height and width beyond which a picture is made smaller.
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
    """Returns pictures uint8 and whether what is found shares a label, for a record.

    `clean_query` and `attacked_query` (n, C, h, w); `clean_found` and `attacked_found` (n, 10, C, h, w); `clean_relevant` and
    `attacked_relevant` (n, 10).

    Args:
        queries, items: images of the queries and of the database.
        chosen: the queries' indices (n,); `attacked` are their perturbed images.
        clean_codes, attacked_codes: their codes and labels.
        database: codes and labels of `items`.
    """
    made = {"clean_query": _small(queries.batch(chosen)[0]), "attacked_query": _small(attacked)}
    for name, codes in (("clean", clean_codes), ("attacked", attacked_codes)):
        found = nearest(codes.codes, database.codes, N_FOUND)
        pictures = _small(items.batch(found.flatten())[0])
        made[f"{name}_found"] = pictures.view(*found.shape, *pictures.shape[1:])
        labels = database.labels[found]
        same = labels == codes.labels[:, None] if labels.dim() == 2 else (labels * codes.labels[:, None]).sum(2) > 0
        made[f"{name}_relevant"] = same
    return made


def _small(images: Tensor) -> Tensor:
    images = images.detach().cpu()
    if max(images.shape[2:]) > _SIZE:
        images = F.interpolate(images, (_SIZE, _SIZE), mode="area")
    return (255 * images).round().to(torch.uint8)
