"""Tutum's service model, declared in Python."""

__version__ = "0.1.0"
