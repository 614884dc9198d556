"""Datasets: where files come from, the canonical form that all stages read, what networks see of it, and labels."""
