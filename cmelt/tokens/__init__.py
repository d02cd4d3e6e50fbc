"""ECGs as tokens that a language model can read and write: quantised to a few symbols, neighbours merged (ECG-Byte)."""
