"""Datasets: where their files come from, and the one canonical form that every stage reads."""
