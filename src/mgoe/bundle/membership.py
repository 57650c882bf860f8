"""What a bundle belongs to: the registry that holds it as a version, and its deployment.

A deployment is a registry, the store of its services, and the bundles that are made from both. Its identity
is made with its first bundle. The registry, the store and every bundle that is made in the deployment hold
it; a bundle of `mgoe run` holds none, and is of the deployment of the registry or store that takes it.
"""

import logging
import uuid
from pathlib import Path

from mgoe._util.files import read_json
from mgoe.bundle.bundle import Bundle
from mgoe.errors import OtherDeploymentError

logger = logging.getLogger(__name__)

VERSIONS, LINK, CHANGE = "versions", ".aliases", "change.json"
"""Of a registry: the folder of versions, the link to the latest change, and the file that describes it."""
DEPLOYMENT = "deployment"
"""Key of a manifest, of a change of a registry and of a store."""


def registry_of(bundle: Path) -> Path | None:
    """Return the registry that holds a bundle as a version; None if none does.

    Args:
        bundle: Its folder, not a link to it, such as `Bundle.path`.

    Example:
        >>> registry_of(bundle.path) is None
        True
    """
    registry = bundle.parent.parent
    return registry if bundle.parent.name == VERSIONS and (registry / LINK).exists() else None


def deployment_of(bundle: Bundle) -> str | None:
    """Return the deployment of a bundle: that of its registry, or where it was made; None if it has none.

    Example:
        >>> deployment_of(bundle) is None  # of `mgoe run`
        True
    """
    registry = registry_of(bundle.path)
    held = None if registry is None else read_json(registry / LINK / CHANGE).get(DEPLOYMENT)
    return held or bundle.manifest.deployment


def new_deployment() -> str:
    """Return an identity that no other deployment has."""
    return str(uuid.uuid4())


def check_deployment(place: object, theirs: str | None, ours: str | None) -> str | None:
    """Return the deployment of a store or a registry and of a bundle, which must be one.

    A bundle without one is of the other's, which is said.

    Args:
        place: The store or the registry.
        theirs: Its deployment; None if it has none yet.
        ours: That of the bundle; None if it has none.

    Raises:
        OtherDeploymentError: They are of two deployments.
    """
    if theirs is not None and ours is None:
        logger.warning(f"the bundle is taken for one of the deployment {theirs}, which is that of {place}")
    if theirs != ours and None not in (theirs, ours):
        raise OtherDeploymentError(
            place,
            f"is of the deployment {theirs}, found a bundle of the deployment {ours}; name what belongs "
            "together, or add --adopt once if it is meant to be moved",
        )
    return theirs or ours
