"""Training: the recipe a user declares, and the one loop that carries it out."""
