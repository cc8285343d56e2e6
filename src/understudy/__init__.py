"""understudy: learn a subject from a few photos, let it take another subject's place.

The values and the errors are here; each verb is in the module of its name::

    from understudy import load_model, read_folder, read_picture, applied, write_picture
    from understudy.learn import learn
    from understudy.invert import invert
    from understudy.swap import swap
    from understudy.edit import edit
    from understudy.generate import generate
    from understudy.project import project
    from understudy.drag import drag

Modules are imported when one of their names is first used, so ``import understudy`` is quick and
needs no model. It imports nothing at all, because it comes before the command's interrupt handler.
"""

from __future__ import annotations

from understudy._version import __version__

TYPE_CHECKING = False  # type checkers take it for True; `typing` takes milliseconds to import

if TYPE_CHECKING:
    from understudy.concept import Concept, applied, spelled, with_strengths
    from understudy.drag.session import DragSession
    from understudy.errors import (
        ConceptError,
        ExtraMissing,
        InputError,
        ModelError,
        OutputError,
        PictureError,
        PromptError,
        UnderstudyError,
    )
    from understudy.generators.folder import load_generator
    from understudy.generators.interface import ImageGenerator
    from understudy.invert.inversion import Inversion
    from understudy.models.interface import DiffusionModel
    from understudy.models.registry import available as available_models
    from understudy.models.registry import load as load_model
    from understudy.pictures.recipe import Recipe, read_recipe
    from understudy.pictures.tensors import read_folder, read_picture, write_picture
    from understudy.project.latent import Latent
    from understudy.settings import (
        EditSettings,
        GenerateSettings,
        InvertSettings,
        LearnSettings,
        SwapSettings,
    )
    from understudy.settings.drag import DragSettings
    from understudy.settings.project import ProjectSettings

__all__ = [
    "Concept",
    "ConceptError",
    "DiffusionModel",
    "DragSession",
    "DragSettings",
    "EditSettings",
    "ExtraMissing",
    "GenerateSettings",
    "ImageGenerator",
    "InputError",
    "Inversion",
    "InvertSettings",
    "Latent",
    "LearnSettings",
    "ModelError",
    "OutputError",
    "PictureError",
    "ProjectSettings",
    "PromptError",
    "Recipe",
    "SwapSettings",
    "UnderstudyError",
    "__version__",
    "applied",
    "available_models",
    "load_generator",
    "load_model",
    "read_folder",
    "read_picture",
    "read_recipe",
    "spelled",
    "with_strengths",
    "write_picture",
]

_LAZY = {
    "Concept": "concept.Concept",
    "ConceptError": "errors.ConceptError",
    "DiffusionModel": "models.interface.DiffusionModel",
    "DragSession": "drag.session.DragSession",
    "DragSettings": "settings.drag.DragSettings",
    "EditSettings": "settings.EditSettings",
    "ExtraMissing": "errors.ExtraMissing",
    "GenerateSettings": "settings.GenerateSettings",
    "ImageGenerator": "generators.interface.ImageGenerator",
    "InputError": "errors.InputError",
    "Inversion": "invert.inversion.Inversion",
    "InvertSettings": "settings.InvertSettings",
    "Latent": "project.latent.Latent",
    "LearnSettings": "settings.LearnSettings",
    "ModelError": "errors.ModelError",
    "OutputError": "errors.OutputError",
    "PictureError": "errors.PictureError",
    "ProjectSettings": "settings.project.ProjectSettings",
    "PromptError": "errors.PromptError",
    "Recipe": "pictures.recipe.Recipe",
    "SwapSettings": "settings.SwapSettings",
    "UnderstudyError": "errors.UnderstudyError",
    "applied": "concept.applied",
    "available_models": "models.registry.available",
    "load_generator": "generators.folder.load_generator",
    "load_model": "models.registry.load",
    "read_folder": "pictures.tensors.read_folder",
    "read_picture": "pictures.tensors.read_picture",
    "read_recipe": "pictures.recipe.read_recipe",
    "spelled": "concept.spelled",
    "with_strengths": "concept.with_strengths",
    "write_picture": "pictures.tensors.write_picture",
}


def __getattr__(name: str) -> object:
    """A name of a module that is imported now that somebody wants it."""
    from importlib import import_module

    if name not in _LAZY:
        raise AttributeError(f"module 'understudy' has no attribute {name!r}")
    module, attribute = _LAZY[name].rsplit(".", 1)
    return getattr(import_module(f"understudy.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
