"""Pictures: decoding untrusted files, colour, tensors, pasting, contact sheets, recipes.
Knows nothing of models."""
