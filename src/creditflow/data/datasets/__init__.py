"""Datasets: one file each, which defines `DATASET`; the file name is the dataset's id."""
