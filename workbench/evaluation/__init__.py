"""Evaluation: what a model is asked, and its answers, one score per item. Trains nothing and averages nothing."""
