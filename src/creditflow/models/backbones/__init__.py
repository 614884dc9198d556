"""Backbones: one file each, which defines `build(image_shape) -> (features module, number of features)`."""
