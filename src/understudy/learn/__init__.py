"""Photos of a subject -> Concept: the verb is in `learn.py`, the parts in the other files."""

from understudy.learn.learn import LearnStep, learn, learn_steps

__all__ = ["LearnStep", "learn", "learn_steps"]
