"""What the user may set: `knobs` says what a setting is, `resolve` what fills the ones not given,
`suits` what a model asks for; one file per verb holds its settings and their presets. Free of
torch; knows nothing of models beyond that file, and nothing of pictures."""

from understudy.settings.demo import DemoSettings
from understudy.settings.edit import EDIT_METHODS, EditSettings
from understudy.settings.generate import GenerateSettings
from understudy.settings.invert import METHODS, InvertSettings
from understudy.settings.knobs import Settings
from understudy.settings.learn import LEARN_METHODS, LEARN_PRESET_NAMES, LearnSettings
from understudy.settings.run import DTYPES, QUANTISED, RunSettings
from understudy.settings.swap import SwapSettings

__all__ = [
    "DTYPES",
    "QUANTISED",
    "EDIT_METHODS",
    "LEARN_METHODS",
    "LEARN_PRESET_NAMES",
    "METHODS",
    "DemoSettings",
    "EditSettings",
    "GenerateSettings",
    "InvertSettings",
    "LearnSettings",
    "RunSettings",
    "Settings",
    "SwapSettings",
]
