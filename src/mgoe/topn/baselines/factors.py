"""iALS (Hu, Koren & Volinsky 2008): weighted matrix factorisation by least squares, by implicit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mgoe.config import RangeSettings
from mgoe.topn.baselines.baseline import HALF_LIFE, Baseline, Budget, load_implicit
from mgoe.topn.lists import Events, Scores


def fit_ials(events: Events, settings: Mapping[str, Any], seed: int, budget: Budget) -> Scores:
    """Factorise all events, then solve the factors of each user's profile, in which older events count less.

    Confidence is 1 + alpha ln(1 + events). Factors, regularisation, alpha and iterations are all searched,
    which is what makes iALS strong (Rendle et al. 2022).
    """
    model = load_implicit("als").AlternatingLeastSquares(
        factors=settings["factors"],
        regularization=settings["regularization"],
        alpha=settings["alpha"],
        iterations=settings["iterations"],
        random_state=seed,
    )
    model.fit(sp.csr_matrix(events.matrix()), show_progress=False)
    profiles, items = (
        sp.csr_matrix(events.profiles.matrix(settings["half_life"])),
        np.asarray(model.item_factors),
    )

    def scores(users: NDArray[np.int64]) -> NDArray[np.float32]:
        return model.recalculate_user(users, profiles[users]) @ items.T

    return scores


IALS = Baseline(
    fit_ials,
    {"factors": 128, "regularization": 0.01, "alpha": 40.0, "iterations": 15, "half_life": 30.0},
    {
        "factors": RangeSettings(low=32, high=512, log=True),
        "regularization": RangeSettings(low=0.001, high=100.0, log=True),
        "alpha": RangeSettings(low=0.5, high=500.0, log=True),
        "iterations": [8, 15, 30],
        "half_life": HALF_LIFE,
    },
    random=True,
    by_profile=True,
    by_implicit=True,
)
