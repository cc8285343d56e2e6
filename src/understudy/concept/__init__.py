"""What was learnt, as a value: what it is (value.py), on disk (folder.py), put on (wear.py)."""

from understudy.concept.apply import (
    embedded,
    named_parameters,
    replace_weights,
    untouched,
    worn,
)
from understudy.concept.folder import MANIFEST
from understudy.concept.value import Concept, spelled, with_articles, with_strengths

__all__ = [
    "MANIFEST",
    "Concept",
    "embedded",
    "named_parameters",
    "replace_weights",
    "spelled",
    "untouched",
    "with_articles",
    "with_strengths",
    "worn",
]
