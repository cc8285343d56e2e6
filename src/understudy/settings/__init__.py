"""What the user may set: `knobs` says what a setting is, the other files hold the settings of the
verbs and their named presets. Free of torch; knows nothing of models or pictures."""

from understudy.settings.knobs import Settings
from understudy.settings.verbs import (
    DTYPES,
    EDIT_METHODS,
    LEARN_METHODS,
    LEARN_PRESET_NAMES,
    METHODS,
    DemoSettings,
    EditSettings,
    GenerateSettings,
    InvertSettings,
    LearnSettings,
    RunSettings,
    SwapSettings,
)

__all__ = [
    "DTYPES",
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
