"""Tmall: six months of clicks, carts, purchases and favourites before a sale, of the IJCAI-15 competition."""

from mgoe.datasets.dataset import DataSet
from mgoe.datasets.reading import LAST_OUT, Workbench, in_order, moment

_COLUMNS = ("user_id", "item_id", "cat_id", "seller_id", "brand_id", "time_stamp", "action_type")
_ACTIONS = {"0": "click", "1": "cart", "2": "buy", "3": "fav"}


def write(bench: Workbench) -> dict[str, int]:
    """Write events with their day, what is known of users, and category, seller and brand of items.

    The files give month and day, so a user's events of one day have no order: it is by item and action. If an
    item has several values of a feature, the smallest counts.
    """
    bench.view("raw", "user_log_format1.csv", _COLUMNS)
    bench.define(
        "events",
        f"""SELECT user_id::BIGINT AS user_id, item_id::BIGINT AS item_id,
            try_strptime('2014' || lpad(time_stamp, 4, '0'), '%Y%m%d')::DATE AS timestamp,
            MAP {_ACTIONS}[action_type] AS behavior
        FROM raw""",
    )
    bench.define(
        "placed",
        f"""SELECT *, {in_order("user_id", "timestamp, item_id, behavior")}
        FROM events WHERE timestamp IS NOT NULL AND behavior IS NOT NULL""",
    )
    written = bench.write(
        "log/events.parquet",
        f"""SELECT user_id, item_id, timestamp, behavior, {moment(LAST_OUT, "place")} AS part
        FROM placed""",
    )
    bench.convert(
        "users.parquet",
        "user_info_format1.csv",
        ("user_id", "age_range", "gender"),
        """user_id::BIGINT AS user_id, nullif(age_range::TINYINT, 0) AS age_range,
            nullif(gender::TINYINT, 2) AS gender""",
    )
    bench.write(
        "items.parquet",
        """SELECT item_id::BIGINT AS item_id, min(cat_id::BIGINT) AS category,
            min(seller_id::BIGINT) AS seller, min(brand_id::BIGINT) AS brand
        FROM raw GROUP BY ALL ORDER BY 1""",
    )
    return {"without a day of the year, or of another action": bench.count("raw") - written}


TMALL = DataSet(
    name="tmall",
    title="IJCAI-15 Repeat Buyers Prediction, user log of Tmall",
    form="events",
    tasks=("click", "fav", "buy"),
    home="https://tianchi.aliyun.com/dataset/42",
    license="on the home page",
    size="361 MB, 1.8 GB unpacked",
    files=("user_log_format1.csv", "user_info_format1.csv"),
    write=write,
    config="tmall",
    time="by day up to 9 November 2014, before the sale, as in examples/tmall.yaml; cuts at quantiles of the "
    "events",
    published="leave-last-out, as in sequential and multi-behaviour papers: each user's last event is "
    "test, the one before valid; other users' later events are in the history, and the order within a day "
    "is unknown",
    layout="SongDark/Mecos-tf, data/tmall/readme.md and process_data_format1.py; "
    "Leven0212/Tmall, DataLoad.py",
    access="an account on the home page; data_format1.zip holds the files",
    notes="train_format1.csv and test_format1.csv are left out: they hold pairs of user and seller, without "
    "items. Carts are in the log and no task, since there is one in 700 rows. The log of our figures is a "
    "selection by others of 17,435 users (docs/datasets.md).",
)
