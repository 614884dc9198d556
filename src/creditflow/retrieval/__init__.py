"""Hashing-based image retrieval: the HyP2 loss, hash codes, who is searched for in what, ranking and its measures."""

from creditflow.retrieval.codes import encode, hash_codes
from creditflow.retrieval.ranking import average_precisions, curves, mean_average_precision, nearest

__all__ = ["average_precisions", "curves", "encode", "hash_codes", "mean_average_precision", "nearest"]
