"""Command-line options generated from settings and inputs: help and default included.

A command takes its settings and inputs as parameters; `knobs` replaces each of them by the options
of its class, and makes the values when the command runs. A setting that was not given stays out of
the construction, so that a preset may fill it. --help shows the values that the command's default
model gets; --show-settings prints those of the model, method and preset that were given.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from understudy.cli import show
from understudy.settings import RunSettings
from understudy.settings.inputs import Inputs
from understudy.settings.knobs import Settings, count_or_share, option
from understudy.settings.resolve import Value

_NAMES = re.compile(r"[a-z0-9+-]+(, [a-z0-9+-]+)*: ")


def knobs(command: Callable[..., None]) -> Callable[..., None]:
    """Replace every parameter of a Settings or Inputs class by that class's options."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Settings]] = {}
    inputs: dict[str, type[Inputs]] = {}
    parameters: list[inspect.Parameter] = []
    taken = inspect.signature(command).parameters
    usual = _usual_model(hints.values(), taken)
    for name, parameter in taken.items():
        kind = hints[name] if isinstance(hints[name], type) else object
        if issubclass(kind, Settings):
            groups[name] = kind
            defaults = kind.filled({}, usual).to_dict()
            parameters += [as_parameter(f, defaults[f.name]) for f in dataclasses.fields(kind)]
        elif issubclass(kind, Inputs):
            inputs[name] = kind
            types = get_type_hints(kind)
            parameters += [as_input(f, types[f.name]) for f in dataclasses.fields(kind)]
        else:
            parameters.append(
                parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
            )

    @functools.wraps(command)
    def run(**given: Any) -> None:
        model = given.get("model") or given.get("generator") or usual
        made = {name: make(group, given, model) for name, group in groups.items()}
        if given.pop("show_settings"):
            show_settings(made.values(), bool(given.get("json")))
        elif given.pop("show_plan", False):
            show_plan(_verb(command), made.values(), given)
        else:
            values = {
                name: kind(
                    **{field.name: given.pop(field.name) for field in dataclasses.fields(kind)}
                )
                for name, kind in inputs.items()
            }
            command(**made, **values, **given)

    parameters.append(SHOW_SETTINGS)
    if RunSettings in groups.values():
        parameters.append(SHOW_PLAN)

    run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del run.__wrapped__  # pyright: ignore[reportAttributeAccessIssue]
    return run


def _usual_model(hints: Iterable[Any], taken: Mapping[str, inspect.Parameter]) -> str:
    """The model whose values --help shows: the default generator, or the default model."""
    if "generator" in taken:
        return taken["generator"].default
    for hint in hints:
        if isinstance(hint, type) and issubclass(hint, Inputs):
            found = {field.name: field.default for field in dataclasses.fields(hint)}
            if "generator" in found:
                return str(found["generator"])
    return RunSettings().model


SHOW = "--show-settings"
SHOW_SETTINGS = inspect.Parameter(
    "show_settings",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option(SHOW, help="Print the settings' values and exit.")],
)


PLAN = "--show-plan"
SHOW_PLAN = inspect.Parameter(
    "show_plan",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool, typer.Option(PLAN, help="Print memory, evaluations and licence, and exit.")
    ],
)


FORMER = {"--clip": "--clip-model", "--dino": "--dino-model"}  # of `evaluate`; not in --help


class Command(TyperCommand):
    """A command that needs no arguments where only its settings are to be shown.

    Former names of options are read, where the name has no other meaning.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {name for parameter in self.params for name in parameter.opts}
        args = [_present(word, known) for word in args]
        if SHOW in args or PLAN in args:
            for parameter in self.params:
                parameter.required = False
        return super().parse_args(ctx, args)


def _present(word: str, known: set[str]) -> str:
    """A former name of an option, "--clip" or "--clip=PATH", as the present one."""
    name, equals, value = word.partition("=")
    present = FORMER.get(name, name)
    return f"{present}{equals}{value}" if present in known and name not in known else word


def show_settings(settings: Iterable[Settings], json: bool) -> None:
    """Print every value that a run would use, as JSON or one per line."""
    values = {name: value for group in settings for name, value in group.to_dict().items()}
    width = max(map(len, values), default=0)
    show.result(values, json, *(f"{name:{width}}  {said(v)}" for name, v in values.items()))


def _verb(command: Callable[..., None]) -> str:
    """The verb of a command's job: "learn", "evaluate swap"."""
    group = "evaluate " if command.__module__.endswith(".evaluate") else ""
    return f"{group}{command.__name__}"


def show_plan(verb: str, settings: Iterable[Settings], given: dict[str, Any]) -> None:
    """Print what a run would need, as JSON or one fact per line; nothing is loaded."""
    from understudy.jobs.plan import lines_of, needs
    from understudy.jobs.request import Job

    groups = list(settings)
    run = next(group for group in groups if isinstance(group, RunSettings))
    values = {name: value for group in groups for name, value in group.to_dict().items()}
    found = needs(run, {**given, **values}, Job.of(verb, *groups))
    show.result(found, bool(given.get("json")), *lines_of(found))


def said(value: Value) -> str:
    """A value as --help shows it."""
    return f"{value}".lower() if isinstance(value, bool) else f"{value}" or "empty"


def as_sentence(text: str) -> str:
    """A knob's help as the other options have it: capital letter, full stop.

    Names of methods at the beginning ("lora, pivotal: rank") stay as they are spelled.
    """
    text = text if _NAMES.match(text) else text[0].upper() + text[1:]
    return f"{text}."


def as_parameter(field: dataclasses.Field[Any], default: Value) -> inspect.Parameter:
    """One knob as a keyword-only parameter that typer understands; None means "not given".

    default: the value that --help shows.
    """
    name, share, choices = option(field.name), field.metadata["share"], field.metadata["choices"]
    switch = field.metadata["switch"] or isinstance(field.default, bool)
    spelling = f"{name}/--no-{name[2:]}" if switch else name
    info: Any = typer.Option(
        spelling,
        help=f"{as_sentence(field.metadata['help'])} [default: {said(default)}]",
        metavar=None if switch else "|".join(choices) or ("COUNT|SHARE" if share else None),
        show_default=False,
        parser=count_or_share if share else None,
    )
    taken: Any = Any if share else (bool if switch else type(field.default)) | None
    annotation = Annotated[taken, info]
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kind, default=None, annotation=annotation)


def as_input(field: dataclasses.Field[Any], kind: Any) -> inspect.Parameter:
    """One input as a keyword-only parameter that typer understands."""
    about, default = field.metadata, inspect.Parameter.empty
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    elif field.default is not dataclasses.MISSING:
        default = field.default
    shown: Any = about["shown"] or default is not None
    if about["positional"]:
        info: Any = typer.Argument(help=about["help"], show_default=shown)
    else:
        info = typer.Option(
            *filter(None, [about["names"]]),
            help=about["help"],
            metavar="|".join(about["values"]) or None,
            min=about["at_least"],
            max=about["at_most"],
            show_default=shown,
        )
    keyword = inspect.Parameter.KEYWORD_ONLY
    annotation = Annotated[kind, info]
    return inspect.Parameter(field.name, keyword, default=default, annotation=annotation)


def make(group: type[Settings], given: dict[str, Any], model: str) -> Settings:
    """Take a class's options out of `given` and make the settings: preset first, options over it.

    Raises InputError, naming the option, for a value out of bounds.
    """
    fields = {field.name: field for field in dataclasses.fields(group)}
    values = {name: given.pop(name) for name in fields}
    chosen = {name: value for name, value in values.items() if value is not None}
    for name, value in chosen.items():
        if fields[name].metadata["switch"]:
            chosen[name] = "on" if value else "off"
    return group.filled(chosen, model)
