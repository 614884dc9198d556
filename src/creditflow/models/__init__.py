"""Models: how they are described, built and stored, and published weights. A model is plain: learning rules are put on from outside."""
