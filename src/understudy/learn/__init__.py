"""Photos of a subject -> Concept: the verb is in `learn.py`, the parts in the other files."""

from understudy.learn.learn import learn, learn_steps
from understudy.learn.run import LearnStep
from understudy.learn.subject import Subject

__all__ = ["LearnStep", "Subject", "learn", "learn_steps"]
