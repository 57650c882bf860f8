"""Models by name: presets, and the classes that presets and models of your own start from."""

import pkgutil

import torch

from mgoe.config import ModelSettings, Settings, check_settings, did_you_mean, named, names
from mgoe.errors import ConfigError
from mgoe.features import GROUPS, input_groups
from mgoe.models.base import RankingModel
from mgoe.models.baselines.boosted import BoostedTrees
from mgoe.models.baselines.din import DIN
from mgoe.models.baselines.flat import SharedBottom, SingleTask
from mgoe.models.baselines.funnel import AITM, ESMM
from mgoe.models.baselines.linear import Constant, History, LogisticRegression, Popularity, RateSum
from mgoe.models.baselines.macgnn import MacGNN
from mgoe.models.baselines.own_experts import PLE, HoME
from mgoe.models.baselines.shared_experts import MetaHeac, MMoE, OMoE
from mgoe.models.baselines.stem import STEM
from mgoe.models.mgoe.model import MGOE
from mgoe.models.spec import FeatureSpec

_BASELINES: dict[str, type[RankingModel]] = {
    "single-task": SingleTask,
    "shared-bottom": SharedBottom,
    "omoe": OMoE,
    "mmoe": MMoE,
    "ple": PLE,
    "esmm": ESMM,
    "aitm": AITM,
    "metaheac": MetaHeac,
    "stem": STEM,
    "home": HoME,
    "din": DIN,
}
BASES: dict[str, type[RankingModel]] = {
    "mgoe": MGOE,
    **_BASELINES,
    "macgnn": MacGNN,
    "lightgbm": BoostedTrees,
    "logistic": LogisticRegression,
    "rates": RateSum,
    "popularity": Popularity,
    "history": History,
    "constant": Constant,
}
"""Model classes by name; extensions add others, and `module:Class` reaches any."""

_PLAIN: tuple[str, ...] = ("ids", "side", "context", "recents", "content")
_RATES: tuple[str, ...] = ("side", "context", "rates")
_COUNTS: tuple[str, ...] = ("side", "context", "counts", "pair")
_MOMENT: tuple[str, ...] = ("repeats", "trend", "links", "categories")
_EDGES: tuple[str, ...] = (*_COUNTS, "sketch", "edges", "rates", "placing", *_MOMENT)
_GRAPH: tuple[str, ...] = (*_EDGES, "aggregates")
INPUTS: dict[str, tuple[str, ...]] = {
    "counts": (*_COUNTS, "content"),
    "moment": (*_COUNTS, "repeats", "trend", "categories", "rates", "content"),
    "edges": _EDGES,
    "graph": _GRAPH,
    "mgoe": ("ids", *_GRAPH),
}
"""Inputs that the second part of a name stands for, as in `mmoe+edges`; `+moment` is all that is counted
without the graph, and `+mgoe` the inputs of `mgoe`, with its rule for ids. What reads the graph reads vectors
through `placing`, and else through `content`."""
_INTERCEPT = {"epochs": 1, "learning_rate": 0.05}
"""Training of a model that has an intercept alone."""
_KNOWN_INTERCEPT = {"epochs": 1, "learning_rate": 1e-6}
"""Training of a model whose intercept is known before."""

PRESETS: dict[str, ModelSettings] = {
    "mgoe": ModelSettings(name="mgoe", base="mgoe", inputs=INPUTS["mgoe"], ids="auto"),
    "mgoe-paper": ModelSettings(
        name="mgoe-paper",
        base="mgoe",
        inputs=(*_PLAIN, "aggregates"),
        ids="on",
        options={
            "form": "paper",
            "aggregate": 32,
            "mask_empty": False,
            "edge_vectors": False,
            "knots": [],
            "gate_query": "experts",
            "one_gate": False,
            "table": True,
            "transfer": "aitm",
        },
        training={"refit": "none"},  # the protocol of the paper
    ),
    **{name: ModelSettings(name=name, base=name, inputs=_PLAIN, ids="on") for name in _BASELINES},
    "macgnn": ModelSettings(
        name="macgnn",
        base="macgnn",
        inputs=(*_PLAIN, "aggregates"),
        ids="on",
        options={"aggregate": 32, "mask_empty": False, "edge_vectors": False},
    ),
    "lightgbm": ModelSettings(name="lightgbm", base="lightgbm", inputs=(*_COUNTS, "content"), ids="auto"),
    "logistic": ModelSettings(name="logistic", base="logistic", inputs=_RATES, ids="off"),
    "rates": ModelSettings(name="rates", base="rates", inputs=("rates",), ids="off"),
    **{
        name: ModelSettings(name=name, base=name, inputs=(group,), ids="off", training=_INTERCEPT)
        for name, group in (("popularity", "counts"), ("history", "pair"))
    },
    "constant": ModelSettings(
        name="constant", base="constant", inputs=("counts",), ids="off", training=_KNOWN_INTERCEPT
    ),
}
"""`mgoe`, the best configuration (with ids if the log has enough of each); `mgoe-paper`, the paper as
written; the baselines as published; boosted trees on counts; and what needs no training."""


def resolve(model: str | ModelSettings) -> ModelSettings:
    """Return complete settings: a base that is a class, its inputs, and options that the class accepts.

    Args:
        model: Name of a preset, with `+counts`, `+moment`, `+edges`, `+graph` or `+mgoe` for other inputs, or
            settings whose `base` is such a name, that of an extension, or the import path `module:Class` of a
            model of your own, which both read the groups of `mgoe` but ids by default. Given options replace
            those of the preset.

    Raises:
        ConfigError: The name or an option is unknown, the class cannot be imported, or an input that it needs
            is missing.

    Example:
        >>> resolve("logistic+counts").inputs
        ('side', 'context', 'counts', 'pair', 'content')
    """
    given = ModelSettings(name=model, base=model) if isinstance(model, str) else model
    place = f"models.{given.name}"
    base, plus, suffix = given.base.partition("+")
    known = names("mgoe.models", PRESETS)
    if base in PRESETS:
        preset = PRESETS[base]
    elif ":" in base or base in known:
        preset = ModelSettings(name=base, base=base, inputs=_GRAPH, ids="auto")
    else:
        raise ConfigError(
            place,
            f"unknown model {base!r}{did_you_mean(base, known)}; "
            "a model of your own is named by its import path, `module:Class`",
        )
    if plus and suffix not in INPUTS:
        raise ConfigError(place, f"unknown inputs {suffix!r} after `+`{did_you_mean(suffix, [*INPUTS])}")
    kind = class_of(preset.base, place)
    of_name = (*INPUTS[suffix], *kind.requires & {"recents"}) if plus else preset.inputs or _GRAPH
    inputs = of_name if given.inputs is None else given.inputs
    valid = names("mgoe.inputs", GROUPS)
    for number, name in enumerate(inputs):
        if name not in valid:
            raise ConfigError(
                place,
                f"inputs.{number}: must be an input group, found {name!r}{did_you_mean(name, valid)}",
            )
    lacking = [*input_groups(kind.requires - {*inputs})]
    if lacking:
        raise ConfigError(
            place,
            f"{kind.__name__} cannot do without the input {lacking[0]!r}, found {', '.join(inputs)}; add it",
        )
    # A suffix gives each group as all others read it.
    whole = {"edge_vectors": True} if plus and "edge_vectors" in preset.options else {}
    options = {**preset.options, **whole, **given.options}
    check_settings(kind.Options, options, f"{place}.options")
    return given.model_copy(
        update={
            "base": preset.base,
            "inputs": tuple(input_groups(inputs)),
            "ids": given.ids or (PRESETS["mgoe"] if suffix == "mgoe" else preset).ids,
            "options": options,
            "training": {**preset.training, **given.training},
        }
    )


def options_of(model: ModelSettings) -> type[Settings]:
    """Return the switches of a resolved model's base.

    Raises:
        ConfigError: The class cannot be imported.

    Example:
        >>> options_of(resolve("mgoe-paper")).__name__
        'MGOEOptions'
    """
    return class_of(model.base, f"models.{model.name}").Options


def written_out(model: ModelSettings) -> ModelSettings:
    """Return a resolved model with every switch written out, so that it does not change when a default does.

    Raises:
        ConfigError: The class cannot be imported, or does not know an option.

    Example:
        >>> "experts" in written_out(resolve("mmoe")).options
        True
    """
    switches = check_settings(options_of(model), model.options, f"models.{model.name}.options")
    return model.model_copy(update={"options": switches.model_dump(mode="json")})


def make_model(settings: ModelSettings | str, spec: FeatureSpec, seed: int) -> RankingModel:
    """Return a fresh model. The same seed gives the same parameters, and torch's own generator does not
    change.

    Raises:
        ConfigError: See `resolve`; or the inputs leave the model nothing to read.

    Example:
        >>> model = make_model(resolve("mmoe+mgoe"), spec, seed=0)
        >>> type(model).__name__
        'MMoE'
    """
    resolved = resolve(settings)
    place = f"models.{resolved.name}"
    kind = class_of(resolved.base, place)
    options = check_settings(kind.Options, resolved.options, f"{place}.options")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return kind(spec, resolved.inputs or (), options)
        except ConfigError as error:
            raise ConfigError(f"{place}.{error.place}", error.message) from None


def class_of(base: str, place: str) -> type[RankingModel]:
    """Return the class of a model, built in, of an extension or by its import path.

    Args:
        base: The base of a resolved model.
        place: For messages.

    Raises:
        ConfigError: It cannot be imported, or is no model.

    Example:
        >>> class_of("mmoe", "models.mmoe").__name__
        'MMoE'
    """
    try:
        kind = pkgutil.resolve_name(base) if ":" in base else named("mgoe.models", BASES, base, type)
    except (ValueError, ImportError, AttributeError) as error:  # not of an extension
        raise ConfigError(
            place,
            f"{base!r} cannot be imported ({error}); put its folder on PYTHONPATH; an import path has the "
            "form `module:Class`",
        ) from None
    if not (isinstance(kind, type) and issubclass(kind, RankingModel)):
        raise ConfigError(place, f"{base!r} must name a subclass of mgoe.models.RankingModel, found {kind!r}")
    return kind
