"""Codes and labels as machine words: distances of codes are counts of bits, shared labels are bits in common."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def code_words(codes: Tensor) -> NDArray[np.unsignedinteger]:
    """Returns codes (n, K) in {-1, +1} as words (W, n), of 32 bits if one such word is enough, else of 64."""
    return _packed(codes.cpu().numpy() > 0, 4 if codes.shape[1] <= 32 else 8).T.copy()


def label_words(labels: Tensor) -> NDArray[np.integer]:
    """Returns labels (N,) as they are, and zeros and ones (N, C) packed into words (N, W) of 64 bits."""
    return labels.cpu().numpy() if labels.dim() == 1 else _packed(labels.cpu().numpy() > 0, 8)


def _packed(bits: NDArray[np.bool_], octets: int) -> NDArray[np.unsignedinteger]:
    packed = np.packbits(bits, axis=1)
    padded = np.zeros((len(packed), -(-packed.shape[1] // octets) * octets), dtype=np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint32 if octets == 4 else np.uint64)


def grouped(
    words: NDArray[np.unsignedinteger],
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64], NDArray[np.int64]]:
    """Returns the different columns of words (W, n), an order (n,) that brings equal columns together, and the group
    sizes.

    Equal columns keep their order.
    """
    order = np.argsort(words[0], kind="stable") if len(words) == 1 else np.lexsort(words)
    arranged = words[:, order]
    first = np.concatenate([[True], (arranged[:, 1:] != arranged[:, :-1]).any(0)])
    starts = np.flatnonzero(first)
    return arranged[:, starts], order, np.diff(starts, append=len(order))


def shared(labels: NDArray[np.integer], query: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Returns whether items share a label with a query: label words (n,) and (), or (n, W) and (W,)."""
    return np.asarray(labels == query) if labels.ndim == 1 else np.asarray((labels & query).any(-1))
