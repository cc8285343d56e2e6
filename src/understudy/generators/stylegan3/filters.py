"""StyleGAN3's low-pass filters in closed form: Kaiser-windowed sinc and its radial variant.
NumPy only.

Both have a Kaiser window, whose shape follows from the wanted width of the transition band
(Kaiser 1974; Karras et al. 2021, section 3.2 and appendix C).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.generators.stylegan3.config import LayerPlan

Array = np.ndarray[Any, np.dtype[Any]]
POINTS = 256  # of the integral that gives J1; exact to rounding for arguments below 200


def low_pass(taps: int, cutoff: float, width: float, rate: float, radial: bool = False) -> Array:
    """A filter of sum 1, float64: (taps,), or (taps, taps) if radial.

    cutoff: where half the amplitude is left; width: of the whole transition band; rate: samples a
    unit, to which both refer. A separable filter stands for its product with itself.
    """
    places = (np.arange(taps) - (taps - 1) / 2) / rate
    window = np.kaiser(taps, kaiser_beta(taps, width / (rate / 2)))
    if radial:
        distances = np.hypot(places[:, None], places[None, :])
        shape = jinc(cutoff, distances) * np.outer(window, window)
    else:
        shape = np.sinc(2 * cutoff * places) * window
    return shape / shape.sum()


def kaiser_beta(taps: int, width: float) -> float:
    """The window's parameter for a transition band, a share of half the rate (Kaiser 1974)."""
    attenuation = 2.285 * (taps - 1) * np.pi * width + 7.95
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    return 0.0


def jinc(cutoff: float, distances: Array) -> Array:
    """What a disc of frequencies up to cutoff f looks like at a distance r: f J1(2 pi f r) / r."""
    away = np.where(distances == 0, 1.0, distances)
    return np.where(
        distances == 0, np.pi * cutoff**2, cutoff * bessel_j1(2 * np.pi * cutoff * away) / away
    )


def bessel_j1(x: Array) -> Array:
    """J1 by its integral (1 / pi) of cos(t - x sin t) over half a turn (Bessel 1824).

    Over a whole turn the integrand is periodic and smooth, so that equal steps give all digits.
    """
    turns = 2 * np.pi * np.arange(POINTS) / POINTS
    return np.cos(turns - np.asarray(x)[..., None] * np.sin(turns)).mean(axis=-1)


def filters(plan: LayerPlan) -> dict[str, Array]:
    """What a layer has of up_filter and down_filter, by these names, float32 as published."""
    found: dict[str, Array] = {}
    for name, taps, end in (("up_filter", plan.up_taps, 0), ("down_filter", plan.down_taps, 1)):
        if taps > 1:
            radial = plan.radial and end == 1
            band = plan.cutoffs[end], 2 * plan.widths[end]
            found[name] = low_pass(taps, *band, plan.between, radial).astype(np.float32)
    return found
