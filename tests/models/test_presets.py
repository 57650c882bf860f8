"""Models by name."""

import math

import pytest
import yaml
from torch import nn

from mgoe.config import ModelSettings, dump_settings, make_settings
from mgoe.errors import ConfigError
from mgoe.models import BASES, MGOE, PRESETS, MMoE, SharedBottom, TaskSpec, make_model, resolve
from mgoe.models.spec import FeatureSpec
from tests.models.batches import RATES, UNTRAINED, make_spec, random_batch

SUFFIXES = ("", "+counts", "+edges", "+graph", "+mgoe")
NAMES = [
    base + suffix
    for base in PRESETS
    for suffix in SUFFIXES
    if not (base.startswith("macgnn") and suffix in ("+counts", "+edges"))
    and not (base == "rates" and suffix)
]
BASELINES = [
    "single-task",
    "shared-bottom",
    "omoe",
    "mmoe",
    "ple",
    "esmm",
    "aitm",
    "metaheac",
    "stem",
    "home",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_the_comparison_resolves_once_and_for_all(name):
    settings = resolve(name)
    assert settings.name == name
    assert resolve(settings) == settings
    assert ModelSettings.model_validate_json(settings.model_dump_json()) == settings
    assert resolve(ModelSettings(name=name, base=name)) == settings
    passed_over = {"ids", "recents"} if settings.base == "lightgbm" else set()
    assert make_model(name, make_spec(rates=RATES), 0).needs == set(settings.inputs) - passed_over


def test_names_stand_for_inputs():
    inputs = {name: set(resolve(name).inputs) for name in NAMES}
    assert all(inputs[name] == {"ids", "side", "context", "recents", "content"} for name in BASELINES)
    assert all(inputs[f"{base}+mgoe"] == inputs["mgoe"] for base in {*PRESETS} - {"rates", "din"})
    assert inputs["din+mgoe"] == inputs["mgoe"] | {"recents"}  # what it attends to
    assert inputs["lightgbm"] == inputs["mmoe+counts"]
    counts = {"side", "context", "counts", "pair"}
    assert inputs["mmoe+counts"] == counts | {"content"}
    assert inputs["mmoe+edges"] == counts | {
        *("sketch", "edges", "rates", "placing", "repeats", "trend", "links", "categories")
    }
    assert inputs["logistic"] == {"side", "context", "rates"}
    assert inputs["rates"] == {"rates"}
    assert inputs["mmoe+graph"] == inputs["mmoe+edges"] | {"aggregates"} == inputs["mgoe"] - {"ids"}
    assert inputs["mgoe-paper"] == inputs["macgnn"] == inputs["mmoe"] | {"aggregates"}


def test_baselines_keep_their_published_ids_and_mgoe_decides_by_the_log():
    others = {"mgoe": "auto", "lightgbm": "auto", **dict.fromkeys(("logistic", *UNTRAINED), "off")}
    assert {name: resolve(name).ids for name in PRESETS} == {name: others.get(name, "on") for name in PRESETS}
    assert all(resolve(f"{name}+mgoe").ids == "auto" for name in PRESETS if name not in UNTRAINED)
    assert resolve(ModelSettings(name="mmoe", base="mmoe", ids="off")).ids == "off"


def test_the_paper_preset_reads_the_paper():
    spec = FeatureSpec(
        **(vars(make_spec()) | {"user_side": (), "item_side": (), "context": (), "widths": {}, "moments": {}})
    )
    model = make_model("mgoe-paper", spec, 0)
    assert isinstance(model, MGOE)
    options = model.options
    assert (options.form, options.transfer, options.table) == ("paper", "aitm", True)
    assert options.aggregate == 2 * options.width
    assert model.inputs.width == 0
    assert (
        model.towers.mlp.own.shape[1] == 2 * options.width + 4 * options.aggregate + 2 * options.width
    )  # MGE_t and two table entries
    assert model.towers.mlp.common.shape[0] == 2 * options.aggregate  # micro neighbours bypass the experts


def test_the_same_suffix_gives_every_model_the_same_inputs():
    spec, batch = make_spec(), random_batch(make_spec(), 4)
    ours = make_model("mgoe+mgoe", spec, 0).inputs.names
    for name in [*BASELINES, "macgnn"]:
        built = make_model(f"{name}+mgoe", spec, 0)
        theirs = [column for column in built.inputs.dense.names if column in built.inputs.dense.keys]
        assert theirs == [column for column in ours if column in built.inputs.dense.keys]
        assert built.predict(batch).shape == (4, 3)


def test_the_budget_of_ids_is_everyone_s():
    rows = {name: make_model(name, make_spec(), 0) for name in ["mgoe", *BASELINES, "macgnn"]}
    widths = {
        name: next(
            table.embedding_dim
            for table in built.modules()
            if isinstance(table, nn.Embedding) and table.num_embeddings == 31
        )
        for name, built in rows.items()
    }
    assert set(widths.values()) == {48}


@pytest.mark.parametrize("knots", [[1, 1], [2, -1], [math.nan], [11], [-math.inf, 0], list(range(-9, 9))])
def test_knots_rise_within_what_values_are_clipped_to(knots):
    with pytest.raises(
        ConfigError,
        match=r"knots: takes up to 16 numbers, each above the one before, between -10 and 10.*sort them",
    ):
        resolve(ModelSettings(name="mine", base="mgoe", options={"knots": knots}))


def test_one_knot_needs_no_list():
    assert MGOE.Options.model_validate({"knots": 0.5}).knots == (0.5,)  # type: ignore[attr-defined]


def test_own_options_lie_over_the_preset_s():
    settings = resolve(
        ModelSettings(name="mine", base="mgoe-paper", options={"tau": 0.5}, inputs=("aggregates", "ids"))
    )
    assert settings.base == "mgoe"
    assert settings.options["tau"] == 0.5
    assert settings.options["form"] == "paper"
    assert settings.inputs == ("ids", "aggregates")


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_baselines_have_the_same_capacity(tasks):
    spec = make_spec(tasks)
    kinds = ("mmoe", "shared-bottom", "single-task", "omoe", "esmm", "metaheac")
    sizes = {kind: sum(p.numel() for p in make_model(f"{kind}+edges", spec, 0).dense()) for kind in kinds}
    assert sizes == pytest.approx(dict.fromkeys(kinds, sizes["mmoe"]), rel=0.02)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("mmeo", "did you mean 'mmoe'"),
        ("mmoe+count", "did you mean 'counts'"),
        (
            "macgnn+counts",
            "MacGNN cannot do without the input 'aggregates', found side, context, counts, pair",
        ),
        (ModelSettings(name="x", base="lightgbm", inputs=("ids",)), "nothing to read"),
        (ModelSettings(name="x", base="stem", inputs=()), "nothing to read"),
        (ModelSettings(name="x", base="mgoe", options={"transfr": "none"}), "did you mean 'transfer'"),
        (
            ModelSettings(name="x", base="mgoe", options={"form": "some"}),
            "models.x.options: form: Input should be 'mlp' or 'paper'",
        ),
        (
            ModelSettings(name="x", base="mmoe", options={"experts": 0}),
            "experts: Input should be greater than or equal to 1",
        ),
        (ModelSettings(name="x", base="shared-bottom", options={"hidden": [0]}), "greater than 0, found 0"),
        (ModelSettings(name="x", base="mgoe", options={"tower_hidden": []}), "at least 1 item"),
        (ModelSettings(name="x", base="mgoe", inputs=()), "nothing to read"),
        (ModelSettings(name="x", base="mmoe", inputs=()), "nothing to read"),
        (ModelSettings(name="x", base="mgoe-paper", inputs=("edges",)), "nothing to read"),
        (ModelSettings(name="x", base="no_such_module:Model"), "cannot be imported"),
        (ModelSettings(name="x", base="mgoe.models:FeatureSpec"), "must name a subclass"),
        (ModelSettings(name="x", base="mgoe.models:Nothing"), "cannot be imported"),
        (ModelSettings(name="x", base=":"), "has the form `module:Class`"),
    ],
)
def test_a_wrong_choice_is_refused_in_one_sentence(model, says):
    with pytest.raises(ConfigError) as error:
        make_model(model, make_spec(), 0)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_bases_are_classes():
    found = {name: type(make_model(name, make_spec(rates=RATES), 0)) for name in PRESETS}
    assert found == {name: BASES[settings.base] for name, settings in PRESETS.items()}
    assert (found["mgoe"], found["mgoe-paper"], found["mmoe"], found["shared-bottom"]) == (
        MGOE,
        MGOE,
        MMoE,
        SharedBottom,
    )


def test_a_model_of_one_s_own_by_its_import_path(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.config.rootpath / "examples"))
    settings = ModelSettings(name="mine", base="own_model:CrossNetwork", options={"crosses": 3})
    spec = make_spec((TaskSpec("click"), TaskSpec("buy")))
    model = make_model(settings, spec, 0)
    assert len(model.crosses) == 3
    loss, _ = model.loss(random_batch(spec))
    loss.backward()
    assert all(p.grad is not None and p.grad.to_dense().any() for p in model.parameters())
    with pytest.raises(ConfigError, match="did you mean 'crosses'"):
        resolve(settings.model_copy(update={"options": {"croses": 3}}))


def test_ids_that_yaml_takes_for_yes_and_no_are_on_and_off():
    found = [
        ModelSettings.model_validate(yaml.safe_load(f"{{name: x, base: mgoe, ids: {word}}}")).ids
        for word in ("on", "off", "auto")
    ]
    assert found == ["on", "off", "auto"]


def test_settings_that_are_saved_give_the_same_models_again():
    given: list[dict[str, object]] = [
        {},
        {"options": {"width": 8}},
        {"inputs": ["side", "recents", "aggregates"]},
    ]
    given += [{"ids": ids} for ids in ("on", "off", "auto")]
    models = [{"name": f"{name}-{k}", "base": name, **more} for name in NAMES for k, more in enumerate(given)]
    own = {"name": "own", "base": "mgoe.models:MMoE"}
    models = [
        model
        for model in models
        if not (model["base"].startswith(("lightgbm", *UNTRAINED)) and len({*model} & {"options", "inputs"}))
    ]
    settings = make_settings({"data": {"log": "x"}, "tasks": ["buy"], "models": [*NAMES, *models, own]})
    again = make_settings(yaml.safe_load(dump_settings(settings)))
    assert again == settings
    assert [resolve(model) for model in again.models] == [resolve(model) for model in settings.models]
