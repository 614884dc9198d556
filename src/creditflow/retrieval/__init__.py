"""Hashing-based image retrieval: the HyP2 loss, hash codes, who is searched for in what, ranking and its measures."""
