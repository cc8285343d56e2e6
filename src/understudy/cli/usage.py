"""Errors of the command line's parser, as one line each: what was wanted, what came, what to do."""

from __future__ import annotations

import re
from typing import Any

import typer

from understudy.errors import sentence

# What the parser finds wrong with a value -> what was wanted, in the words of `settings.knobs`.
KINDS = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
}
BOUNDS = {"greater_than_equal": "at least {ge}", "less_than_equal": "at most {le}"}
_UNREADABLE = re.compile(r"Invalid value for .*: \w+ '(.*)' is not readable\.?", re.DOTALL)
_EXTRA = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", re.DOTALL)


def message(error: typer.TyperException) -> str:
    """One line for an error of the parser."""
    if told := _bad_value(error):
        return told
    said = error.format_message()
    if file := _UNREADABLE.fullmatch(said):
        return f"{file[1]} may not be read. Change its permissions."
    if extra := _EXTRA.match(said):
        said = f"Unexpected: {extra[1]}. Text of several words must be in quotes"
    command = getattr(getattr(error, "ctx", None), "command_path", "")
    help_ = f" See {command} --help." if command and "Did you mean" not in said else ""
    return sentence(said, most=len(said) + 1) + help_


def _bad_value(error: typer.TyperException) -> str:
    """ "--seed must be a whole number. Got 'abc'." for a value of the wrong kind; else empty."""
    faults: Any = getattr(error.__cause__, "errors", None)
    parameter: Any = getattr(error, "param", None)
    if not callable(faults) or parameter is None:
        return ""
    found: Any = faults()
    kind, about, given = found[0]["type"], found[0].get("ctx", {}), found[0]["input"]
    name = parameter.get_error_hint().strip("'")
    if kind in KINDS:
        return f"{name} must be {KINDS[kind]}. Got {given!r}."
    if kind in BOUNDS:
        return f"{name} must be {BOUNDS[kind].format(**about)}. Got {given}."
    return f"{name}: {about['error']}" if kind == "value_error" else ""  # from `count_or_share`
