"""A study with people: questions.py asks, votes.py keeps, server.py shows, tally.py counts.

Two results of one case side by side, in random order, as the papers ask it; three raters a
question; repeats and catch questions tell who does not look. Nobody who rates learns which method
is which.
"""
