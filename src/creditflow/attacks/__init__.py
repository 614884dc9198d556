"""Attacks: each method is a file in `methods/` or `hashing/` and only proposes images; one judge decides for all of them."""
