"""The model of a finished cell, and its calibration."""

from mgoe._util.files import read_json
from mgoe.bundle.calibration import Calibration
from mgoe.bundle.manifest import State
from mgoe.config import check_settings
from mgoe.data import Split
from mgoe.experiments.folder import CALIBRATION
from mgoe.experiments.inputs import Inputs
from mgoe.experiments.plan import Cell, is_boosted
from mgoe.experiments.refit import SPEC, folder_of
from mgoe.features import FeatureSpec
from mgoe.models import BoostedTrees, RankingModel, make_model
from mgoe.training import WEIGHTS, load_weights
from mgoe.training.boosted import load_trees


def load_model(cell: Cell, inputs: Inputs, state: State = "tested") -> RankingModel:
    """Return the model of a finished cell with its weights in a state."""
    folder = folder_of(cell.folder, state)
    spec = FeatureSpec.from_json((folder / SPEC).read_text(encoding="utf-8"))
    settings = inputs.resolve_ids(cell.model)
    model = make_model(settings, spec, cell.seed)
    if is_boosted(settings):
        assert isinstance(model, BoostedTrees)
        load_trees(model, folder)
    else:
        load_weights(model, folder / WEIGHTS)
    return model.eval()


def load_calibration(cell: Cell, fitted_on: Split) -> Calibration:
    """Return a calibration of a finished cell: that of `valid` knows nothing of the test window."""
    file = cell.folder / CALIBRATION
    return check_settings(Calibration, read_json(file)[fitted_on], file)
