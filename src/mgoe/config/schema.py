"""The JSON Schema of a configuration, with which editors complete and check it."""

from typing import Any, Literal

from mgoe.config.comparison import ComparisonSettings
from mgoe.config.run import RunSettings


def json_schema(of: Literal["settings", "comparison"]) -> dict[str, Any]:
    """Return the JSON Schema of the file of a run, or of a comparison, as plain values.

    It knows the keys, types, ranges and meanings. Rules between several keys, and the switches of models, are
    checked when the file is read.

    Example:
        >>> json_schema("settings")["required"]
        ['data', 'tasks']
    """
    kind = RunSettings if of == "settings" else ComparisonSettings
    schema = kind.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        part["description"] = part["description"].split("\n\nExample:")[0]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
