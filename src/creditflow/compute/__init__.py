"""What a job needs of the machine: device, random streams, checkpoints, provenance, GPU slots, fast matrix products, and imports that
work with every build of torch. What is computed is decided elsewhere.
"""
