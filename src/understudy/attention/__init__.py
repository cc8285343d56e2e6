"""Attention as values: what may pass through a layer (plan), and how it is computed (attend).
Knows no model and no method."""
