"""Pages that are generated: figures from JSON, reference from the code. ``python -m docs.generate`` writes them all."""
