"""The pages, and the generator of those that no hand writes (``python -m docs.generate``)."""
