"""The engine of the ablation workbench: plan, train in pairs, score per item, decide, publish.

Importing this package imports nothing heavy; each layer loads what it needs (see CONTRIBUTING.md, "Layers").
"""

__version__ = "0.1.0"
