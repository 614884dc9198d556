"""Attacks: each method, a file in `methods/` or `hashing/`, only proposes images; one judge decides for all."""
