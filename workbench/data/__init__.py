"""Text: corpora, splits, tokenizers, token files, and the order in which training reads them; no models."""
