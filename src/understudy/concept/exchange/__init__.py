"""Concepts out to other programs' files and in from them: whole folders, LoRAs, embeddings."""

from understudy.concept.exchange.exchange import FORMATS, export_concept, import_concept

__all__ = ["FORMATS", "export_concept", "import_concept"]
