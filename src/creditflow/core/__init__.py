"""What every room builds on: mistakes of users in one line, files that are whole or absent, settings, and plugins. It
does not import torch and knows nothing of the science.
"""
