"""What stage scripts have in common: their options, how they end, and the loading of what they measure.

This is the only room that may import all others.
"""
