"""Small networks that are trained many at a time: seeds x learning rates of one update rule in one job."""
