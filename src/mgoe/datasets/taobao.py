"""Taobao UserBehavior: nine days of clicks, carts, favourites and purchases of a million users."""

from mgoe.datasets.dataset import DataSet, Download
from mgoe.datasets.reading import LAST_OUT, Workbench, in_order, moment

_COLUMNS = ("user_id", "item_id", "category_id", "behavior", "seconds")
_BEHAVIOR = """CASE WHEN behavior IN ('pv', 'fav', 'cart', 'buy') THEN behavior ELSE error(
    'UserBehavior.csv, user ' || user_id || ' at ' || seconds || ': a behavior must be pv, fav, cart or buy, '
    'found ' || coalesce(behavior, 'none')) END"""
# 25 November to 3 December 2017 in Beijing
_NINE_DAYS = "seconds::BIGINT >= 1511539200 AND seconds::BIGINT < 1512316800"


def write(bench: Workbench) -> dict[str, int]:
    """Write events, and the category of each item at its first event.

    Rows with a time outside the nine days are errors of the log and left out.
    """
    bench.view("raw", "UserBehavior.csv", _COLUMNS, header=False)
    bench.define(
        "placed",
        f"""SELECT user_id::BIGINT AS user_id, item_id::BIGINT AS item_id,
            category_id::BIGINT AS category_id, {_BEHAVIOR} AS behavior,
            to_timestamp(seconds::BIGINT) AT TIME ZONE 'UTC' AS timestamp,
            {in_order("user_id::BIGINT", "seconds::BIGINT, item_id::BIGINT, behavior")}
        FROM raw WHERE {_NINE_DAYS}""",
    )
    written = bench.write(
        "log/events.parquet",
        f"""SELECT user_id, item_id, timestamp, behavior, {moment(LAST_OUT, "place")} AS part
        FROM placed""",
    )
    bench.write(
        "items.parquet",
        f"""SELECT item_id::BIGINT AS item_id, arg_min(category_id::BIGINT, seconds::BIGINT) AS category
        FROM raw WHERE {_NINE_DAYS} GROUP BY ALL ORDER BY 1""",
    )
    return {"outside the nine days": bench.count("raw") - written}


TAOBAO = DataSet(
    name="taobao",
    title="User Behavior Data from Taobao for Recommendation",
    form="events",
    tasks=("click", "fav", "cart", "buy"),
    home="https://tianchi.aliyun.com/dataset/649",
    license="on the home page",
    size="906 MB, 3.5 GB unpacked",
    files=("UserBehavior.csv",),
    write=write,
    config="taobao",
    time="by day: 2 days history, 5 train, 2 December valid, 3 December test; buckets of 8 hours",
    published="leave-last-out, as in sequential and multi-behaviour papers: each user's last event is "
    "test, the one before valid; other users' later events are in the history, and sequences end on any day",
    layout="without a header: user_id, item_id, category_id, behavior (pv, fav, cart, buy), seconds; "
    "pyg-team/pytorch_geometric, torch_geometric/datasets/taobao.py; thuml/DARE, preprocess/README.md",
    downloads=(Download("https://alicloud-dev.oss-cn-hangzhou.aliyuncs.com/UserBehavior.csv.zip"),),
    access="the address is PyTorch Geometric's; the home page needs an account",
)
