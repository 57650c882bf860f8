"""KuaiRec: a sparse matrix of watched videos, and a small one that is almost fully observed."""

from mgoe.datasets.dataset import DataSet, Download
from mgoe.datasets.reading import PARTS, TEST, Workbench, moment

_COLUMNS = ("user_id", "video_id", "play_duration", "timestamp", "watch_ratio")
_USER = {
    **dict.fromkeys(
        ("user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author"), "VARCHAR"
    ),
    **dict.fromkeys(("follow_user_num", "fans_user_num", "friend_user_num", "register_days"), "DOUBLE"),
}
_LABELS = """user_id::BIGINT AS user_id, video_id::BIGINT AS item_id,
    (watch_ratio::DOUBLE >= 1)::TINYINT AS finish,
    (watch_ratio::DOUBLE > 2)::TINYINT AS "like", (play_duration::DOUBLE / 1000)::FLOAT AS play"""


def write(bench: Workbench) -> dict[str, int]:
    """Write the big matrix with its times and its tenth along time, each row once, then the small one."""
    bench.view("big", "big_matrix.csv", _COLUMNS)
    bench.view("small", "small_matrix.csv", _COLUMNS)
    bench.define(
        "timed", "SELECT DISTINCT *, timestamp::DOUBLE AS moment FROM big WHERE timestamp IS NOT NULL"
    )
    bench.define(
        "placed",
        f"""SELECT *, ntile({PARTS}) OVER (ORDER BY moment, user_id::BIGINT, video_id::BIGINT) AS part,
            row_number() OVER (PARTITION BY user_id::BIGINT ORDER BY moment, video_id::BIGINT) AS place
        FROM timed""",
    )
    written = bench.write(
        "log/big.parquet",
        f"""SELECT {_LABELS}, to_timestamp(moment) AT TIME ZONE 'UTC' AS timestamp,
            {moment("part", "place")} AS part
        FROM placed""",
    )
    bench.write(
        "log/small.parquet",
        f"SELECT {_LABELS}, NULL::TIMESTAMP AS timestamp, {moment(str(TEST))} AS part FROM small",
    )
    features = ", ".join(f"{name}::{kind} AS {name}" for name, kind in _USER.items())
    bench.convert(
        "users.parquet",
        "user_features.csv",
        ("user_id", *_USER),
        f"user_id::BIGINT AS user_id, {features}",
    )
    bench.convert(
        "items.parquet",
        "item_categories.csv",
        ("video_id", "feat"),
        "video_id::BIGINT AS item_id, translate(feat, '[] ', '') AS tags",
    )
    return {"of the big matrix that repeat another or have no time": bench.count("big") - written}


KUAIREC = DataSet(
    name="kuairec",
    title="KuaiRec 2.0",
    form="exposures",
    tasks=("finish", "like", "play"),
    home="https://kuairec.com",
    license="CC BY-SA 4.0",
    size="432 MB",
    files=("big_matrix.csv", "small_matrix.csv", "user_features.csv", "item_categories.csv"),
    write=write,
    config="kuairec",
    time="the big matrix alone, by quantiles of its days",
    published="train on the big matrix, the last tenth of it valid, test on the small, fully observed "
    "matrix; both are of the same weeks, so part of the history lies after the row",
    layout="chongminggao/KuaiRec, README.md and loaddata.py; user_features.csv as rosefun/EGMN reads it",
    downloads=(
        Download(
            "https://zenodo.org/records/18164998/files/KuaiRec.zip",
            431_964_858,
            "261550d472c48eff4990fb13c0e5bcf7",
        ),
    ),
    notes="finish is a watch ratio of at least 1, like one above 2, as the README suggests. "
    "item_daily_features is left out. One row in thirteen of the big matrix repeats another in full, and "
    "counts once.",
)
