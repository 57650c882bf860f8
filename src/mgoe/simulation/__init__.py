"""Simulated logs with known truth: communities, funnel, popularity, drift, arrivals, and the best possible
predictions.

Axes: `T` behaviours (tasks), `U` users, `I` items, `N` exposures or examples.
"""

from mgoe.simulation.chance import check_reachable, reachable
from mgoe.simulation.logs import Form, SimulationSummary, simulate
from mgoe.simulation.loop import Shown, play
from mgoe.simulation.settings import DEVICES, BehaviorSettings, StaySettings, WorldSettings
from mgoe.simulation.truth import Truth
from mgoe.simulation.visits import Visits, VisitSettings
from mgoe.simulation.world import make_truth

__all__ = [
    "DEVICES",
    "BehaviorSettings",
    "Form",
    "Shown",
    "SimulationSummary",
    "StaySettings",
    "Truth",
    "VisitSettings",
    "Visits",
    "WorldSettings",
    "check_reachable",
    "make_truth",
    "play",
    "reachable",
    "simulate",
]
