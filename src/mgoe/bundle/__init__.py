"""The artefact that scores: a folder with everything that a service needs."""

from mgoe.bundle.bundle import Bundle
from mgoe.bundle.card import CARD, model_card
from mgoe.bundle.known_outcomes import KnownOutcomes
from mgoe.bundle.manifest import FORMAT, MANIFEST, BundleManifest, Lineage
from mgoe.bundle.unseen_users import UnseenUsers
from mgoe.bundle.write import seal, write_bundle

__all__ = [
    "CARD",
    "FORMAT",
    "MANIFEST",
    "Bundle",
    "BundleManifest",
    "KnownOutcomes",
    "Lineage",
    "UnseenUsers",
    "model_card",
    "seal",
    "write_bundle",
]
