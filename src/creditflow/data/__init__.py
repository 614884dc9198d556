"""Datasets: where their files come from, the one canonical form that every stage reads, what networks see of it, and labels."""
