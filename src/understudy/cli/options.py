"""Command-line options generated from settings: help and default included.

A command takes its settings as parameters; `knobs` replaces each of them by the options of its
class, and makes the settings when the command runs. An option that was not given stays out of
the settings' construction, so that a preset may fill it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from understudy.errors import InputError
from understudy.settings import RunSettings
from understudy.settings.knobs import Settings, option


def knobs(command: Callable[..., None]) -> Callable[..., None]:
    """Replace every parameter of a Settings class by that class's options."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Settings]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if isinstance(hints[name], type) and issubclass(hints[name], Settings):
            groups[name] = hints[name]
            parameters += [as_parameter(field) for field in dataclasses.fields(hints[name])]
        else:
            parameters.append(
                parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
            )

    @functools.wraps(command)
    def run(**given: Any) -> None:
        model = given.get("model") or given.get("generator") or RunSettings().model
        command(**{name: make(group, given, model) for name, group in groups.items()}, **given)

    run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del run.__wrapped__  # pyright: ignore[reportAttributeAccessIssue]
    return run


def as_parameter(field: dataclasses.Field[Any]) -> inspect.Parameter:
    """One knob as a keyword-only parameter that typer understands; None means "not given"."""
    name, share = option(field.name), field.metadata["share"]
    spelling = f"{name}/--no-{name[2:]}" if isinstance(field.default, bool) else name
    default = f"{field.default}".lower() if isinstance(field.default, bool) else f"{field.default}"
    info: Any = typer.Option(
        spelling,
        help=f"{field.metadata['help']} [default: {default or 'empty'}]",
        metavar="|".join(field.metadata["choices"]) or ("COUNT|SHARE" if share else None),
        show_default=False,
        parser=count_or_share if share else None,
    )
    annotation = Annotated[Any if share else type(field.default) | None, info]
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kind, default=None, annotation=annotation)


def count_or_share(text: str | float) -> int | float:
    """ "20" counts, "0.4" is a share. Raises InputError for anything else."""
    try:
        return int(text) if isinstance(text, int) or "." not in str(text) else float(text)
    except ValueError:
        raise InputError(f"wanted a count like 20 or a share like 0.4. Got {text!r}.") from None


def make(group: type[Settings], given: dict[str, Any], model: str) -> Settings:
    """Take a class's options out of `given` and make the settings: preset first, options over it.

    Raises InputError, naming the option, for a value out of bounds.
    """
    names = [field.name for field in dataclasses.fields(group)]
    values = {name: given.pop(name) for name in names}
    chosen = {name: value for name, value in values.items() if value is not None}
    return group.filled(chosen, model)
