"""Models: how they are described, built and stored, and published weights.

A model is plain. Feedback rules are put on it from outside, by `feedback.apply`.
"""
