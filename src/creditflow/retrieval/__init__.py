"""Hashing-based image retrieval: the HyP2 loss, hash codes, who is searched for in what, ranking and its measures.

Nothing is imported here, as the workflow asks `zeta.py` and must not wait for torch.
"""
