"""XMP packets: the IPTC digital source type of a picture, and its recipe where PNG text is not.

Written by a fixed template and read by two regular expressions: a stranger's packet is never given
to an XML parser. Vocabulary: IPTC NewsCodes, http://cv.iptc.org/newscodes/digitalsourcetype.
"""

from __future__ import annotations

import re
from html import escape, unescape

from understudy._version import __version__

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED = "trainedAlgorithmicMedia"  # drawn by a model alone
COMPOSITE = "compositeWithTrainedAlgorithmicMedia"  # a photo, changed by a model
RENDERED = "algorithmicMedia"  # drawn by a program that learnt from no data

MAX_PACKET = 4_000_000  # characters that are looked at
_TYPE = re.compile(r"DigitalSourceType\s*(?:=\s*[\"']|>)\s*" + re.escape(SOURCE_TYPES) + r"(\w+)")
_RECIPE = re.compile(r"<understudy:Recipe>([^<]*)</understudy:Recipe>")


def packet(source_type: str, recipe: str = "") -> str:
    """The XMP packet that states the source type, and holds the recipe if one is given."""
    held = f"<understudy:Recipe>{escape(recipe, quote=False)}</understudy:Recipe>" if recipe else ""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about=""'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        ' xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        ' xmlns:understudy="https://understudy.invalid/ns/1.0/"'
        f' xmp:CreatorTool="understudy {__version__}"'
        f' Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPES}{source_type}">{held}'
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    )


def source_type(packet: str) -> str | None:
    """The last part of the digital source type that a packet states, if any."""
    found = _TYPE.search(packet[:MAX_PACKET])
    return found[1] if found else None


def recipe_text(packet: str) -> str | None:
    """The JSON of the recipe in a packet, unchecked; None if there is none."""
    found = _RECIPE.search(packet[:MAX_PACKET])
    return unescape(found[1]) if found else None
