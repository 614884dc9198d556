"""Feedback rules for any torch model: layers that send the error back through other weights than those of the forward
pass, and one file for each rule.
"""
