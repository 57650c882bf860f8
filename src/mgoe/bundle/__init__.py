"""The artefact that scores: a folder with everything that a service needs."""

from mgoe.bundle.bundle import Bundle
from mgoe.bundle.write import FORMAT, MANIFEST, write_bundle

__all__ = ["FORMAT", "MANIFEST", "Bundle", "write_bundle"]
