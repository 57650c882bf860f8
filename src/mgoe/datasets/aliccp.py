r"""Ali-CCP: exposures of Taobao's recommender with clicks and purchases; features are lists of fields and
values.

A row is `sample, click, buy, common, count, list`; a common row, one per session, is `common, count, list`.
A list holds `field \x02 feature \x03 value`, separated by \x01."""

from mgoe.datasets.dataset import DataSet
from mgoe.datasets.reading import TEST, Workbench, anywhere, drawn, moment

_COMMON = ("common", "count", "features")
_USER = {
    "profile": "121",
    "profile_group": "122",
    "gender": "124",
    "age": "125",
    "consumption_1": "126",
    "consumption_2": "127",
    "occupied": "128",
    "geography": "129",
}
_ITEM = {"category": "206", "shop": "207", "brand": "216"}


def write(bench: Workbench) -> dict[str, int]:
    """Write exposures with user, item and position, and features of users and items.

    Purchases without a click are errors of the data set and left out.
    """
    intentions = r"regexp_extract_all(features, '(?:^|\x01)210\x02([^\x03]*)\x03', 1)"
    for file in ("train", "test"):
        bench.view(
            f"{file}_rows",
            f"sample_skeleton_{file}.csv",
            ("sample", "click", "buy", *_COMMON),
            header=False,
        )
        bench.view(f"{file}_common", f"common_features_{file}.csv", _COMMON, header=False)
        bench.define(
            f"{file}_users", f"SELECT common, {_field('101')} AS user_id, {_fields(_USER)} FROM {file}_common"
        )
        bench.define(
            f"{file}_shown",
            f"""SELECT common, sample, click::TINYINT AS click, buy::TINYINT AS buy,
                {_field("205")} AS item_id, {_field("301")} AS position,
                {_fields(_ITEM)},
                nullif(array_to_string(list_sort({intentions}), ','), '') AS intentions
            FROM {file}_rows""",
        )
    left_out = 0
    for file, part in {"train": drawn("'ali-ccp ' || common"), "test": str(TEST)}.items():
        left_out += bench.count(f"{file}_rows") - bench.write(
            f"log/{file}.parquet",
            f"""SELECT user_id, item_id, click, buy, position, {moment(part, anywhere("sample"))} AS part
            FROM {file}_shown JOIN {file}_users USING (common)
            WHERE click >= buy AND user_id IS NOT NULL AND item_id IS NOT NULL""",
        )
    for node, features, of in (("user", [*_USER], "users"), ("item", [*_ITEM, "intentions"], "shown")):
        first = ", ".join(f"min({name}) AS {name}" for name in features)
        columns = f"{node}_id, {', '.join(features)}"
        both = f"(FROM train_{of} SELECT {columns} UNION ALL FROM test_{of} SELECT {columns})"
        bench.write(
            f"{node}s.parquet",
            f"SELECT {node}_id, {first} FROM {both} WHERE {node}_id IS NOT NULL GROUP BY 1 ORDER BY 1",
        )
    return {"bought without a click, or without user or item": left_out}


def _field(number: str) -> str:
    """Select the single feature of a field; null if there is none."""
    return rf"nullif(regexp_extract(features, '(?:^|\x01){number}\x02([^\x03]*)\x03', 1), '')"


def _fields(fields: dict[str, str]) -> str:
    return ", ".join(f'{_field(number)} AS "{name}"' for name, number in fields.items())


ALI_CCP = DataSet(
    name="ali-ccp",
    title="Alibaba Click and Conversion Prediction",
    form="exposures",
    tasks=("click", "buy"),
    home="https://tianchi.aliyun.com/dataset/408",
    license="on the home page",
    size="8.8 GB",
    files=tuple(
        f"{kind}_{file}.csv" for file in ("train", "test") for kind in ("sample_skeleton", "common_features")
    ),
    write=write,
    config="ali-ccp",
    published="the published files, test after train as in ESMM: a tenth of the sessions of train is "
    "valid, test is test. Sessions of train are put into ten random parts, since rows have no time; test "
    "reads all of train and nothing else",
    layout="NVIDIA-Merlin/models, merlin/datasets/ecommerce/aliccp/dataset.py",
    access="an account on the home page",
    notes="The several-valued histories (109_14 and the like) and the crosses (508, 509, 702, 853) are "
    "left out: they are counts of history, which the graph has itself. Rows have no time, so there is no "
    "time.yaml.",
)
