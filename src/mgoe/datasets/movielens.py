"""MovieLens 1M and 10M: ratings as exposures, so that tasks differ among what a user chose to rate.

Titles of 1M are in Latin-1, those of 10M in UTF-8. The genre `(no genres listed)` of 10M is a missing value.
"""

from functools import partial

from mgoe.datasets.dataset import DataSet, Download
from mgoe.datasets.reading import Encoding, Workbench


def write(bench: Workbench, users: bool, titles: Encoding) -> dict[str, int]:
    """Write ratings with two labels and the rating itself, genres and year of movies, and in 1M the users'
    own data.
    """
    convert = partial(bench.convert, header=False, delimiter="::")
    convert(
        "log/exposures.parquet",
        "ratings.dat",
        ("user_id", "item_id", "rating", "seconds"),
        """user_id::BIGINT AS user_id, item_id::BIGINT AS item_id,
            to_timestamp(seconds::BIGINT) AT TIME ZONE 'UTC' AS timestamp,
            (rating::DOUBLE >= 4)::TINYINT AS "like", (rating::DOUBLE >= 5)::TINYINT AS love,
            rating::FLOAT AS rating""",
    )
    convert(
        "items.parquet",
        "movies.dat",
        ("item_id", "title", "genres"),
        r"""item_id::BIGINT AS item_id, nullif(genres, '(no genres listed)') AS genres,
            nullif(regexp_extract(title, '\((\d{4})\)\s*$', 1), '')::DOUBLE AS year""",
        encoding=titles,
    )
    if users:
        convert(
            "users.parquet",
            "users.dat",
            ("user_id", "gender", "age", "occupation", "zip"),
            "user_id::BIGINT AS user_id, gender, age, occupation",
        )
    return {}


def _version(name: str, size: int | None, md5: str, users: bool, titles: Encoding) -> DataSet:
    short = name.lower()
    return DataSet(
        name=f"movielens-{short}",
        title=f"MovieLens {name}",
        form="exposures",
        tasks=("like", "love", "rating"),
        home=f"https://grouplens.org/datasets/movielens/{short}",
        license="GroupLens: research, with acknowledgement; no redistribution, no commercial use without "
        "permission",
        size="6 MB" if size is None else f"{size / 1e6:.0f} MB",
        files=("ratings.dat", "movies.dat", *(("users.dat",) if users else ())),
        write=partial(write, users=users, titles=titles),
        config=f"movielens-{short}",
        time="by quantiles of the days, all three tasks",
        published="as in MacGNN: the first 80 % in time are history, the next 10 % training, the last 10 % "
        "test, a rating of 4 or more is the label; the last fifth of the training part is our validation, "
        "quantiles are of positives, and rows of new nodes stay",
        layout="no header, fields between ::, ratings.dat has user_id, item_id, rating, seconds; "
        "the READMEs of GroupLens; YuanchenBei/MacGNN, data/mag/ml_process.py",
        downloads=(Download(f"https://files.grouplens.org/datasets/movielens/ml-{short}.zip", size, md5),),
    )


MOVIELENS = (
    _version("1M", None, "c4d9eecfca2ab87c1945afe126590906", users=True, titles="latin-1"),
    _version("10M", 65_566_137, "ce571fd55effeba0271552578f2648bd", users=False, titles="utf-8"),
)
