"""Tenrec, QK-video: exposures of videos with clicks, likes, shares and follows; rows have an order but no
times.
"""

from mgoe.datasets.dataset import DataSet
from mgoe.datasets.reading import Workbench, along, drawn, in_order, moment

_COLUMNS = (
    "user_id",
    "item_id",
    "click",
    "follow",
    "like",
    "share",
    "video_category",
    "watching_times",
    "gender",
    "age",
)


def write(bench: Workbench) -> dict[str, int]:
    """Write exposures with two synthetic times: `sequence`, along the user's own rows, and `part`, at
    random.
    """
    bench.view("raw", "QK-video.csv", _COLUMNS, null=r"\N")
    bench.define("numbered", "SELECT *, row_number() OVER () AS number FROM raw")
    bench.define("placed", f"SELECT *, {in_order('user_id::BIGINT', 'number')} FROM numbered")
    bench.write(
        "log/exposures.parquet",
        f"""SELECT user_id::BIGINT AS user_id, item_id::BIGINT AS item_id,
            click::TINYINT AS click, "like"::TINYINT AS "like",
            share::TINYINT AS share, follow::TINYINT AS follow, watching_times::INTEGER AS watching_times,
            {moment(along(), "place")} AS sequence, {moment(drawn("'tenrec ' || number"), "place")} AS part
        FROM placed""",
    )
    for node, columns in {"user": ("gender", "age"), "item": ("video_category",)}.items():
        first = ", ".join(f"arg_min({column}, number) AS {column}" for column in columns)
        bench.write(
            f"{node}s.parquet",
            f"SELECT {node}_id::BIGINT AS {node}_id, {first} FROM numbered GROUP BY ALL ORDER BY 1",
        )
    return {}


TENREC = DataSet(
    name="tenrec",
    title="Tenrec, QK-video",
    form="exposures",
    tasks=("click", "like", "share", "follow"),
    home="https://github.com/yuangh-x/2022-NIPS-Tenrec",
    license="CC BY-NC 4.0",
    size="14.1 GiB unpacked",
    files=("QK-video.csv",),
    write=write,
    config="tenrec",
    time="along each user's own rows, in tenths: 2 history, 6 train, the ninth valid, the last test; there "
    "are no times, so rows of different users are not in order",
    published="random 8:1:1, the first of the eight tenths is history; the papers' sample of two unclicked "
    "rows per click is not drawn, and history may be later than the row",
    layout="yuangh-x/2022-NIPS-Tenrec, README.md, utils.py and Data Processing/gen_ctr.py; columns and "
    "null marker in NVIDIA-Merlin/models, examples/quick_start",
    access="Tenrec.zip by Google Drive or a form, both on the home page",
    notes="watching_times is an outcome, not a feature. Gender, age and category are those of a node's "
    "first row.",
)
