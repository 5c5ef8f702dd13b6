"""What a model is: one frozen specification per axis, and the torch module it builds.

This package needs torch and pydantic and imports nothing else of this project, so that a model can be lifted out of it.
"""
