"""How results are marked as made or changed by a model. Free of torch."""

from __future__ import annotations

import dataclasses

from understudy.settings.knobs import Settings, knob

CONSENT = ("unstated", "self", "permission", "public-domain")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarkSettings(Settings):
    """Provenance marks of a written picture. What is switched off is recorded in its recipe.

    The recipe and the IPTC DigitalSourceType are always written.
    """

    watermark: str = knob(
        "auto",
        "invisible watermark; auto: on, except where the photo's own pixels are kept",
        choices=("auto", "on", "off"),
    )
    c2pa: str = knob(
        "auto",
        "signed C2PA manifest; auto: if the extra 'provenance' is installed",
        choices=("auto", "on", "off"),
    )
    sign_key: str = knob(
        "", "PEM file with the private key and certificate chain for C2PA; else a local key"
    )
    consent: str = knob(
        "unstated",
        "recorded consent of the people in the photos",
        choices=CONSENT,
    )
