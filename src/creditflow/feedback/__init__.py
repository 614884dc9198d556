"""Feedback rules for any torch model: layers that send the error back through other weights than the forward pass uses, and one file
for each rule.
"""
