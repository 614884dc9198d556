"""What a job needs of the machine: its device, random streams, checkpoints, provenance, slots of GPUs, fast matrix
products, and imports that work with every build of torch. Other rooms decide what is computed.
"""
