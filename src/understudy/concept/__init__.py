"""A learned subject as a value: definition (value.py), files (folder.py), use (apply.py)."""

from understudy.concept.apply import (
    applied,
    embedded,
    named_parameters,
    replace_weights,
    untouched,
)
from understudy.concept.folder import MANIFEST
from understudy.concept.value import Concept, spelled, with_articles, with_strengths

__all__ = [
    "Concept",
    "MANIFEST",
    "applied",
    "embedded",
    "named_parameters",
    "replace_weights",
    "spelled",
    "untouched",
    "with_articles",
    "with_strengths",
]
