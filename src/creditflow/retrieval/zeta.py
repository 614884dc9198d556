"""The margin zeta of the HyP2 loss: how far apart classes can be in a code of K bits."""

from creditflow.core.errors import UserError

#: Minimum distance d of the best known binary linear code of length K and dimension k = 1, 2, ..., 10 (tables of
#: Brouwer and of Grassl).
_DISTANCES = {
    12: (12, 8, 6, 6, 4, 4, 4, 3, 2, 2),
    16: (16, 10, 8, 8, 8, 6, 6, 5, 4, 4),
    24: (24, 16, 13, 12, 12, 10, 10, 8, 8, 8),
    32: (32, 21, 18, 16, 16, 16, 14, 13, 12, 12),
    36: (36, 24, 20, 18, 17, 16, 16, 16, 14, 14),
    48: (48, 32, 27, 24, 24, 24, 22, 22, 20, 20),
    64: (64, 42, 36, 33, 32, 32, 32, 29, 28, 28),
}


def zeta(bits: int, n_classes: int) -> float:
    """Returns 1 - 2 d / K, the largest cosine between two code words in {-1, +1}^K of the best packing that is known.

    There are 2^k code words with k = ceil(log2(n_classes)), as in the table of Xu et al. (2022). Raises UserError for a
    number of bits or classes outside the table: give `zeta` yourself then.
    """
    dimension = (n_classes - 1).bit_length()
    if bits not in _DISTANCES:
        raise UserError(
            f"no margin is known for codes of {bits} bits; use {', '.join(map(str, _DISTANCES))} bits, or set `zeta`"
        )
    if not 1 <= dimension <= len(_DISTANCES[bits]):
        raise UserError(
            f"no margin is known for {n_classes} classes;"
            f" there must be 2 to {2 ** len(_DISTANCES[bits])}, or set `zeta`"
        )
    return 1 - 2 * _DISTANCES[bits][dimension - 1] / bits
