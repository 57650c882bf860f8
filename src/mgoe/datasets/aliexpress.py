"""AliExpress search: result pages with clicks and purchases in four countries, without ids."""

from functools import partial

from mgoe.datasets.dataset import DataSet
from mgoe.datasets.reading import TEST, Workbench, anywhere, drawn, moment

_USER = [f"user_{k}" for k in range(1, 34)]
_ITEM = [f"item_{k}" for k in range(1, 50)]
_ITEM_CODES = [_ITEM[k - 1] for k in (19, 34, 35, 36, 40, 41, 42)]
CATEGORICAL = {
    f"categorical_{k}": name for k, name in enumerate([*_USER[1:8], *_USER[31:33], *_ITEM_CODES], 1)
}
NUMERICAL = {
    f"numerical_{k}": name
    for k, name in enumerate([*_USER[8:31], *(name for name in _ITEM[1:48] if name not in _ITEM_CODES)], 1)
}
"""MTReclib's column names to the published ones, which are only numbered."""


def write(bench: Workbench, country: str) -> dict[str, int]:
    """Write exposures from the published files, or from `train.csv` and `test.csv` of MTReclib."""
    define = _from_tables if bench.holds("train.csv") else partial(_from_pages, country=country)
    left_out = 0
    codes = {name: f"{name}::DOUBLE::BIGINT" for name in CATEGORICAL}
    parts = [f"coalesce({code}::VARCHAR, '')" for code in codes.values()]  # a missing one keeps its place
    users, items = (f"concat_ws('-', {', '.join(own)})" for own in (parts[:9], parts[9:]))
    values = {
        "user_id": users,
        "item_id": items,
        "click": "click::TINYINT",
        "buy": "buy::TINYINT",
        **codes,
        **{name: f"{name}::FLOAT" for name in NUMERICAL},
    }
    columns = ", ".join(f"{value} AS {name}" for name, value in values.items())
    for file, part in {"train": drawn("'aliexpress ' || search_id"), "test": str(TEST)}.items():
        define(bench, file)
        left_out += bench.count(f"{file}_rows") - bench.write(
            f"log/{file}.parquet",
            f"SELECT {columns}, {moment(part, anywhere('number::VARCHAR'))} AS part FROM {file}",
        )
    return {"of no page, or without a label": left_out}


def _from_tables(bench: Workbench, file: str) -> None:
    bench.view(f"{file}_rows", f"{file}.csv", ("search_id", *CATEGORICAL, *NUMERICAL, "click", "conversion"))
    bench.define(file, f"SELECT *, conversion AS buy, row_number() OVER () AS number FROM {file}_rows")


def _from_pages(bench: Workbench, file: str, country: str) -> None:
    """Join a page's user features to its items, whose last column is 0, 1 (clicked) or 2 (bought)."""
    bench.view(f"{file}_pages", f"{country}_user_{file}.csv", _USER, header=False)
    bench.view(f"{file}_rows", f"{country}_item_{file}.csv", _ITEM, header=False)
    renamed = ", ".join(f"{old} AS {new}" for new, old in (CATEGORICAL | NUMERICAL).items())
    bench.define(
        file,
        f"""SELECT user_1 AS search_id, {renamed},
            item_49::DOUBLE >= 1 AS click, item_49::DOUBLE >= 2 AS buy, number
        FROM (SELECT *, row_number() OVER () AS number FROM {file}_rows) JOIN {file}_pages ON item_1 = user_1
        WHERE item_49::DOUBLE IN (0, 1, 2)""",
    )


def _country(code: str, where: str, size: str) -> DataSet:
    country = code.lower()
    return DataSet(
        name=f"aliexpress-{country}",
        title=f"AliExpress Searching System, {where}",
        form="exposures",
        tasks=("click", "buy"),
        home="https://tianchi.aliyun.com/dataset/74690",
        license="on the home page",
        size=size,
        files=tuple(
            f"{country}_{node}_{file}.csv" for node in ("user", "item") for file in ("train", "test")
        ),
        instead=("train.csv", "test.csv"),
        write=partial(write, country=country),
        config="aliexpress",
        published="the published files, which are split by time: a tenth of the pages of train is valid, "
        "test is test. Pages of train are put into ten random parts, so their history may be later than "
        "they are; test reads all of train and nothing else",
        layout="https://tianchi.aliyun.com/dataset/74690; easezyc/Multitask-Recommendation-Library, "
        "data/preprocess.py and datasets/aliexpress.py",
        access="an account on the home page, or train.csv and test.csv of MTReclib's processed folder, "
        "linked in its README",
        notes="Users and items have no ids: nodes are the combinations of the 9 categories of a user and "
        "the 7 of an item, so a graph knows groups, not people. Rows have no time, so there is no "
        "time.yaml.",
    )


ALIEXPRESS = (
    _country("NL", "Netherlands", "1.49 GB"),
    _country("ES", "Spain", "2.60 GB"),
    _country("FR", "France", "2.25 GB"),
    _country("US", "America", "2.25 GB"),
)
