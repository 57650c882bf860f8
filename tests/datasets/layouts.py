"""Small files in each data set's published layout, with made-up values."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from mgoe.datasets.aliexpress import CATEGORICAL, NUMERICAL

USERS, ITEMS, ROWS = 40, 30, 1200
DAY = 86_400


def lines(path: Path, rows: Iterable[Iterable[object]], separator: str = ",") -> None:
    """Write a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


def draw(rows: int = ROWS, seed: int = 0) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """A source of numbers, and users and items of rows."""
    rng = np.random.default_rng(seed)
    return rng, rng.integers(1, USERS + 1, rows), rng.integers(1, ITEMS + 1, rows)


def chance(rng: np.random.Generator, rows: int, p: float = 0.4) -> np.ndarray:
    """0 or 1 a row."""
    return (rng.random(rows) < p).astype(int)


def taobao(folder: Path) -> None:
    """No header: user, item, category, behaviour, second. As in the real log, rows exceed the nine days."""
    rng, user, item = draw()
    moment = rng.integers(1511539200, 1512316800, ROWS)
    moment[:3] = (-2134949234, 1511539199, 1512316800)
    lines(
        folder / "UserBehavior.csv",
        zip(user, item, item % 7, rng.choice(["pv", "fav", "cart", "buy"], ROWS), moment, strict=True),
    )


def tmall(folder: Path) -> None:
    """Days without a year, codes of actions, missing brands, ages and genders, and two impossible rows."""
    rng, user, item = draw()
    days = np.datetime64("2014-05-11") + rng.integers(0, 186, ROWS)
    stamps = [f"{day.month:02}{day.day:02}" for day in days.tolist()]
    action = rng.choice(4, ROWS, p=[0.5, 0.1, 0.2, 0.2])
    rows = [
        [u, i, i % 7, i % 5, i % 3 or "", day, code]
        for u, i, day, code in zip(user, item, stamps, action, strict=True)
    ]
    rows[0][5], rows[1][6] = "0230", 4
    rows[2][5] = "829"
    log = ["user_id", "item_id", "cat_id", "seller_id", "brand_id", "time_stamp", "action_type"]
    lines(folder / "data_format1" / "user_log_format1.csv", [log, *rows])
    people = ([u, u % 9 if u % 4 else "", u % 3 if u % 5 else ""] for u in range(1, USERS + 1))
    lines(folder / "data_format1" / "user_info_format1.csv", [["user_id", "age_range", "gender"], *people])
    lines(folder / "data_format1" / "train_format1.csv", [["user_id", "merchant_id", "label"], [1, 4, 0]])
    lines(folder / "data_format1" / "test_format1.csv", [["user_id", "merchant_id", "prob"], [2, 3, ""]])


KUAIRAND_LOG = [
    *(
        "user_id",
        "video_id",
        "date",
        "hourmin",
        "time_ms",
        "is_click",
        "is_like",
        "is_follow",
        "is_comment",
        "is_forward",
        "is_hate",
    ),
    *(
        "long_view",
        "play_time_ms",
        "duration_ms",
        "profile_stay_time",
        "comment_stay_time",
        "is_profile_enter",
        "is_rand",
        "tab",
    ),
]
KUAIRAND_USER = [
    *(
        "user_id",
        "user_active_degree",
        "is_lowactive_period",
        "is_live_streamer",
        "is_video_author",
        "follow_user_num",
    ),
    *(
        "follow_user_num_range",
        "fans_user_num",
        "fans_user_num_range",
        "friend_user_num",
        "friend_user_num_range",
    ),
    *("register_days", "register_days_range", *(f"onehot_feat{k}" for k in range(18))),
]
KUAIRAND_VIDEO = [
    *("video_id", "author_id", "video_type", "upload_dt", "upload_type", "visible_status", "video_duration"),
    *("server_width", "server_height", "music_id", "music_type", "tag"),
]


def kuairand(folder: Path, version: str = "pure") -> None:
    """Three logs, users and videos; ranges and tags hold commas, in quotes."""
    data = folder / "data"
    april_8 = 1649347200  # midnight in Beijing
    for seed, (name, start, days, shown) in enumerate(
        [
            ("log_standard_4_08_to_4_21", 0, 14, 0),
            ("log_standard_4_22_to_5_08", 14, 17, 0),
            ("log_random_4_22_to_5_08", 14, 17, 1),
        ]
    ):
        rng, user, item = draw(seed=seed)
        moment = (april_8 + start * DAY + rng.integers(0, days * DAY, ROWS)) * 1000 + 7
        labels = [chance(rng, ROWS) for _ in range(7)]
        zero = np.zeros(ROWS, int)
        hour = rng.integers(0, 24, ROWS) * 100
        play, tab = rng.integers(0, 60_000, ROWS), rng.integers(0, 15, ROWS)
        date = np.full(ROWS, 20220408)
        columns = (
            user,
            item,
            date,
            hour,
            moment,
            *labels,
            play,
            zero + 30_000,
            zero,
            zero,
            chance(rng, ROWS, 0.1),
            zero + shown,
            tab,
        )
        lines(data / f"{name}_{version}.csv", [KUAIRAND_LOG, *zip(*columns, strict=True)])
    person = ["full_active", 0, 0, 1, 5, '"(0,10]"', 312, '"[100,1k)"', 0, 0, 3624, "730+", *range(17), ""]
    lines(
        data / f"user_features_{version}.csv",
        [KUAIRAND_USER, *([user, *person] for user in range(1, USERS + 1))],
    )
    video = [441, "NORMAL", "2020-07-08", "ShortImport", 1, 17200.0, 720, 1280, 989206467, 4.0, '"12,65"']
    lines(
        data / f"video_features_basic_{version}.csv",
        [KUAIRAND_VIDEO, *([item, *video] for item in range(1, ITEMS + 1))],
    )


def kuairec(folder: Path) -> None:
    """Two matrices, users, and tags as lists; two rows of each have no time, three of the big one repeat."""
    header = [
        "user_id",
        "video_id",
        "play_duration",
        "video_duration",
        "time",
        "date",
        "timestamp",
        "watch_ratio",
    ]
    for seed, name in enumerate(("big", "small")):
        rng, user, item = draw(seed=seed)
        moment = 1593878903 + rng.integers(0, 60 * DAY, ROWS)
        played, length = rng.integers(0, 40_000, ROWS), 10_000
        rows = [
            [u, i, p, length, "2020-07-05 00:08:23.438", 20200705, f"{m}.438", p / length]
            for u, i, p, m in zip(user, item, played, moment, strict=True)
        ]
        for row in rows[:2]:
            row[4:7] = "", "", ""
        repeated = rows[5:8] if name == "big" else []
        lines(folder / "KuaiRec 2.0" / "data" / f"{name}_matrix.csv", [header, *rows, *repeated])
    person = ["user_id", "user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author"]
    person += ["follow_user_num", "fans_user_num", "friend_user_num", "register_days"]
    lines(
        folder / "KuaiRec 2.0" / "data" / "user_features.csv",
        [person, *([u, "full_active", 0, 0, 1, u, 2, 0, 90] for u in range(1, USERS + 1))],
    )
    lines(
        folder / "KuaiRec 2.0" / "data" / "item_categories.csv",
        [["video_id", "feat"], *([i, f'"[27, {i}]"'] for i in range(1, ITEMS + 1))],
    )


def movielens(folder: Path, users: bool) -> None:
    """Columns separated by two colons; titles in Latin-1 with users (1M), else in UTF-8."""
    rng, user, item = draw()
    rating = rng.integers(1, 6, ROWS)
    moment = 978300760 + rng.integers(0, 60 * DAY, ROWS)
    lines(folder / "ml" / "ratings.dat", zip(user, item, rating, moment, strict=True), "::")
    movies = "".join(f"{i}::Cité, La: {i} (19{i + 50})::Drama|Children's\n" for i in range(1, ITEMS + 1))
    if not users:
        movies += f"{ITEMS + 1}::Ôdishon (1999)::(no genres listed)\n"
    (folder / "ml" / "movies.dat").write_bytes(movies.encode("latin-1" if users else "utf-8"))
    if users:
        lines(folder / "ml" / "users.dat", ([u, "F", 25, u % 20, "48067"] for u in range(1, USERS + 1)), "::")


def aliexpress_pages(folder: Path, country: str = "nl") -> None:
    """As published: pages with 33 columns, items with 49, no header; the last is 0, 1 or 2."""
    rng = np.random.default_rng(0)
    for name, pages in (("train", 220), ("test", 60)):
        search = rng.permutation(pages) + 10**9
        lines(
            folder / f"{country}_user_{name}.csv",
            ([s, *rng.integers(0, 3, 7), *rng.random(23).round(4), 1, 2] for s in search),
        )
        shown = [[s, *rng.integers(0, 3, 47), rng.integers(0, 3)] for s in np.repeat(search, 5)]
        shown += [[7, *shown[0][1:]], [*shown[0][:-1], 49]]  # on no page; without a label
        lines(folder / f"{country}_item_{name}.csv", shown)


def aliexpress_tables(folder: Path) -> None:
    """As MTReclib makes them of the published files."""
    for name in ("train", "test"):
        user = {row[0]: row for row in _cells(folder / f"nl_user_{name}.csv")}
        rows = []
        for row in _cells(folder / f"nl_item_{name}.csv")[:-2]:
            published = dict(zip([f"user_{k}" for k in range(1, 34)], user[row[0]], strict=True))
            published |= dict(zip([f"item_{k}" for k in range(1, 50)], row, strict=True))
            features = [published[column] for column in (CATEGORICAL | NUMERICAL).values()]
            rows.append([row[0], *features, int(row[48] != "0"), int(row[48] == "2")])
        lines(
            folder / "tables" / f"{name}.csv",
            [["search_id", *CATEGORICAL, *NUMERICAL, "click", "conversion"], *rows],
        )


def _cells(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


def listed(**fields: object) -> str:
    """Ali-CCP's list of features; a field is given as f101 or f109_14."""
    return "\x01".join(f"{name[1:]}\x02{value}\x031.0" for name, value in fields.items())


def ali_ccp(folder: Path) -> None:
    """Rows and sessions without header, among them a purchase without a click and a row without an item."""
    rng, user, item = draw(300)
    for name, rows in (("train", 900), ("test", 200)):
        sessions = [f"{name}{k:04x}" for k in range(len(user))]
        common = (
            [s, 4, listed(f109_14=7, f101=u, f121=u % 98, f122=3, f124=2)]  # fields in no order
            for s, u in zip(sessions, user, strict=True)
        )
        lines(folder / f"sample_{name}" / f"common_features_{name}.csv", common)
        click = chance(rng, rows)
        buy = click * chance(rng, rows)
        several = "9\x031.0\x01210\x028"  # field 210 twice
        shown = [
            [
                k,
                c,
                b,
                sessions[rng.integers(len(sessions))],
                5,
                listed(f216=1, f301=k % 3, f205=item[k % len(item)], f206=4, f210=several),
            ]
            for k, (c, b) in enumerate(zip(click, buy, strict=True), 1)
        ]
        shown[0][1:3] = 0, 1
        shown[1][5] = listed(f301=2, f206=4)
        shown[2][1:] = shown[3][1:]
        lines(folder / f"sample_{name}" / f"sample_skeleton_{name}.csv", shown)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "taobao": taobao,
    "tmall": tmall,
    "kuairand-pure": kuairand,
    "aliexpress-nl": aliexpress_pages,
    "ali-ccp": ali_ccp,
    "movielens-1m": lambda folder: movielens(folder, users=True),
    "movielens-10m": lambda folder: movielens(folder, users=False),
    "kuairec": kuairec,
}
"""By data set; other versions and countries have the same layout."""
