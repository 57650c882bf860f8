"""The whole run as typed, frozen settings, read from one YAML file.

Each stage receives only its own part. Unknown keys are refused with the nearest valid name; `--set a.b=c`
overrides one key. The resolved settings are saved with every result, so the folder is enough to reproduce it.
"""

from mgoe.config.base import AUTO, MEMORY, SEEDS, Settings, did_you_mean
from mgoe.config.comparison import (
    BASELINE_NAMES,
    ComparisonSettings,
    LogSettings,
    RangeSettings,
    SectionSettings,
    TableSettings,
    TopNSettings,
    TuneSettings,
    deep_merge,
    json_schema,
    nested,
    variant_name,
)
from mgoe.config.extensions import check_asked, named, names
from mgoe.config.log import (
    CLOCK_SKEW,
    DataSettings,
    FeatureSettings,
    NegativeSettings,
    SideTableSettings,
    SplitSettings,
    TaskSettings,
    seconds,
)
from mgoe.config.reading import (
    apply_override,
    check_settings,
    dump_settings,
    load_comparison,
    load_experiment,
    load_settings,
    make_settings,
    read_yaml,
    seconds_of,
)
from mgoe.config.retrain import RetrainSettings
from mgoe.config.retrieval import GENERATOR_NAMES, RetrievalSettings, quotas_of, retrieval_of
from mgoe.config.run import (
    BOUNDS,
    EvaluationSettings,
    GraphSettings,
    ModelSettings,
    RateSettings,
    RunSettings,
    SparkSettings,
    TrainingSettings,
)

__all__ = [
    "AUTO",
    "BASELINE_NAMES",
    "BOUNDS",
    "CLOCK_SKEW",
    "GENERATOR_NAMES",
    "MEMORY",
    "SEEDS",
    "ComparisonSettings",
    "DataSettings",
    "EvaluationSettings",
    "FeatureSettings",
    "GraphSettings",
    "LogSettings",
    "ModelSettings",
    "NegativeSettings",
    "RangeSettings",
    "RateSettings",
    "RetrainSettings",
    "RetrievalSettings",
    "RunSettings",
    "SectionSettings",
    "Settings",
    "SideTableSettings",
    "SparkSettings",
    "SplitSettings",
    "TableSettings",
    "TaskSettings",
    "TopNSettings",
    "TrainingSettings",
    "TuneSettings",
    "apply_override",
    "check_asked",
    "check_settings",
    "deep_merge",
    "did_you_mean",
    "dump_settings",
    "json_schema",
    "load_comparison",
    "load_experiment",
    "load_settings",
    "make_settings",
    "named",
    "names",
    "nested",
    "quotas_of",
    "read_yaml",
    "retrieval_of",
    "seconds",
    "seconds_of",
    "variant_name",
]
