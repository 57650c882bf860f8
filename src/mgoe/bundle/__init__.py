"""The artefact that scores: a folder with everything that a service needs."""

from mgoe.bundle.bundle import FORMAT, MANIFEST, Bundle, write_bundle

__all__ = ["FORMAT", "MANIFEST", "Bundle", "write_bundle"]
