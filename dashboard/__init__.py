"""Reads and shows; never trains."""
