"""Photos of a subject -> Concept: the verb is in `learn.py`, the parts in the other files."""

from understudy.learn.course import LearnStep
from understudy.learn.learn import learn, learn_steps
from understudy.learn.task import Subject

__all__ = ["LearnStep", "Subject", "learn", "learn_steps"]
