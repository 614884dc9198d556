"""What only the Snakefile needs: experiments, the layout of paths, the container image, checks of the machine, locks,
forks, and why jobs failed. Nothing here is imported by a stage that computes.
"""
