"""Masks of a photo's subjects: found by a word, a click or a box, and refined to edges.

Knows pictures and diffusion models; knows no verbs and no files.
"""
