"""Engines for preparing a log: DuckDB, Polars (streaming), Spark and Daft do the same work in turn.

    python benchmarks/engines.py --events 1e7              # pip install daft; Spark needs Java
    python benchmarks/engines.py --events 1e8 --engines duckdb,polars --rounds 1

The work is that of `mgoe.data.prepare` on an event log, in three steps, each from Parquet to Parquet:

- `windows`: users and items are numbered by first day, then id; indices and the snapshot of a day are joined;
- `positives`: the events of a user on an item in a day become one row;
- `examples`: four draws per positive from the items of the same day, without those that the user did, and all
  rows in the order of day, user and item.

Draws are a function of day, place and number, so all engines must write the same rows: their number and a
checksum are compared. Simulated log, two cores, every engine in a process of its own with its defaults, but a
limit of memory where it has one (DuckDB 2.4 GiB; Spark's process 3 GiB, `local[2]`).

One line per figure, `{name, value, unit, against, ratio}`, N the events; medians of rounds in turn, against
DuckDB, ratio engine over DuckDB:

- `engines.seconds.STEP.ENGINE.N`: a step; `engines.seconds.ENGINE.N`: the process, its start included;
- `engines.cpu_seconds.ENGINE.N`: processor time until the last step ends, Java's included;
- `engines.peak_gib.ENGINE.N`: anonymous memory.

An engine that fails is named on standard error with its reason, and has no figures.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import THREADS, Spent, child, line, running_seconds, use_cores
from benchmarks.world import TASKS, simulated

STEPS = ("windows", "positives", "examples")
DUCKDB_MEMORY, SPARK_MEMORY = "2.4GiB", "3g"
DRAWS, WINDOWS = 4, 10
DRAW = f"((place * {DRAWS} + k) * 1103515245 + day * 12345) % 2147483647 % size"
"""Place of a draw among the positives of its day: a generator that every engine has."""
KEYS = ("day", "user", "item")
STEP = {
    "windows": """
        WITH users AS (
            SELECT user_id, row_number() OVER (ORDER BY first, user_id) - 1 AS user
            FROM (SELECT user_id, min(day) AS first FROM log GROUP BY user_id) AS u
        ), items AS (
            SELECT item_id, row_number() OVER (ORDER BY first, item_id) - 1 AS item
            FROM (SELECT item_id, min(day) AS first FROM log GROUP BY item_id) AS i
        )
        SELECT user, item, day, snapshot, mask
        FROM log JOIN users USING (user_id) JOIN items USING (item_id) JOIN days USING (day)
    """,
    "positives": """
        SELECT day, user, item, snapshot, bit_or(mask) AS mask
        FROM windows GROUP BY day, user, item, snapshot
    """,
    "examples": f"""
        WITH pool AS (
            SELECT *, row_number() OVER (PARTITION BY day ORDER BY user, item) - 1 AS place FROM positives
        ), sizes AS (
            SELECT day, count(*) AS size FROM positives GROUP BY day
        ), draws AS (
            SELECT day, user, snapshot, {DRAW} AS place
            FROM pool JOIN sizes USING (day) CROSS JOIN range({DRAWS}) AS r(k)
        ), drawn AS (
            SELECT draws.day, draws.user, pool.item, draws.snapshot
            FROM draws JOIN pool ON draws.day = pool.day AND draws.place = pool.place
        )
        SELECT day, user, item, snapshot, mask FROM positives
        UNION ALL
        SELECT day, user, item, snapshot, 0 AS mask FROM drawn WHERE NOT EXISTS (
            SELECT 1 FROM positives AS p
            WHERE p.day = drawn.day AND p.user = drawn.user AND p.item = drawn.item
        )
        ORDER BY day, user, item
    """,
}
"""The steps in the SQL that DuckDB and Spark both read."""


def with_duckdb(work: Path) -> Iterator[str]:
    """Do the steps with DuckDB."""
    con = duckdb.connect(
        config={"memory_limit": DUCKDB_MEMORY, "threads": THREADS, "temp_directory": str(work / "spill")}
    )
    con.execute("SET preserve_insertion_order = false")
    for name in ("log", "days"):
        con.execute(f"CREATE VIEW {name} AS SELECT * FROM '{work.parent / name}.parquet'")
    for step, sql in STEP.items():
        con.execute(f"COPY ({sql}) TO '{work / step}.parquet' (COMPRESSION zstd)")
        con.execute(f"CREATE VIEW {step} AS SELECT * FROM '{work / step}.parquet'")
        yield step


def with_spark(work: Path) -> Iterator[str]:
    """Do the steps with Spark."""
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master(f"local[{THREADS}]")  # pyright: ignore[reportAttributeAccessIssue]
        .config("spark.driver.memory", SPARK_MEMORY)
        .config("spark.local.dir", str(work / "spill"))
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    for name in ("log", "days"):
        session.read.parquet(str(work.parent / f"{name}.parquet")).createOrReplaceTempView(name)
    for step, sql in STEP.items():
        session.sql(sql).write.option("compression", "zstd").parquet(str(work / f"{step}.parquet"))
        session.read.parquet(str(work / f"{step}.parquet")).createOrReplaceTempView(step)
        yield step
    session.stop()


def with_polars(work: Path) -> Iterator[str]:
    """Do the steps with the streaming engine of Polars."""
    import polars as pl

    def scan(folder: Path, name: str) -> pl.LazyFrame:
        return pl.scan_parquet(folder / f"{name}.parquet")

    def numbered(node: str) -> pl.LazyFrame:
        first = log.group_by(f"{node}_id").agg(pl.col("day").min().alias("first"))
        order = first.sort("first", f"{node}_id").with_row_index(node)
        return order.select(f"{node}_id", pl.col(node).cast(pl.Int64))

    def write(frame: pl.LazyFrame, step: str) -> None:
        frame.sink_parquet(work / f"{step}.parquet", compression="zstd", engine="streaming")

    log = scan(work.parent, "log")
    joined = log.join(numbered("user"), on="user_id").join(numbered("item"), on="item_id")
    windows = joined.join(scan(work.parent, "days"), on="day")
    write(windows.select("user", "item", "day", "snapshot", "mask"), "windows")
    yield "windows"
    together = scan(work, "windows").group_by(*KEYS, "snapshot").agg(pl.col("mask").bitwise_or())
    write(together, "positives")
    yield "positives"
    positives = scan(work, "positives")
    ordered = positives.sort(KEYS).with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    sizes = ordered.group_by("day").agg(pl.len().cast(pl.Int64).alias("size"), start=pl.col("row").min())
    pool = ordered.join(sizes, on="day").with_columns(place=pl.col("row") - pl.col("start"))
    place = pl.sql_expr(DRAW)
    draws = pool.join(pl.LazyFrame({"k": range(DRAWS)}), how="cross").with_columns(place=place)
    drawn = draws.select("day", "user", "snapshot", "place").join(
        pool.select("day", "place", "item"), on=["day", "place"]
    )
    new = drawn.join(positives, on=KEYS, how="anti").with_columns(mask=pl.lit(0, pl.Int32))
    columns = [*KEYS, "snapshot", "mask"]
    write(pl.concat([positives.select(columns), new.select(columns)]).sort(KEYS), "examples")
    yield "examples"


def with_daft(work: Path) -> Iterator[str]:
    """Do the steps with Daft on one machine."""
    import daft
    from daft import DataFrame, Window, col, lit
    from daft.functions import row_number

    daft.set_runner_native(num_threads=THREADS)

    def read(folder: Path, name: str) -> DataFrame:
        return daft.read_parquet(str(folder / f"{name}.parquet*"))

    def numbered(node: str) -> DataFrame:
        first = log.groupby(f"{node}_id").agg(col("day").min().alias("first")).with_column("all", lit(0))
        over = Window().partition_by("all").order_by("first", f"{node}_id")
        return first.select(f"{node}_id", (row_number().over(over).cast("int64") - 1).alias(node))

    def write(frame: DataFrame, step: str) -> None:
        frame.write_parquet(str(work / f"{step}.parquet"), compression="zstd")

    log = read(work.parent, "log")
    joined = log.join(numbered("user"), on="user_id").join(numbered("item"), on="item_id")
    windows = joined.join(read(work.parent, "days"), on="day")
    write(windows.select("user", "item", "day", "snapshot", "mask"), "windows")
    yield "windows"
    bits = [1 << task for task in range(len(TASKS))]
    done = [(col("mask") % lit(2 * bit) >= lit(bit)).cast("int32").max().alias(f"bit{bit}") for bit in bits]
    union = sum((col(f"bit{bit}") * bit for bit in bits[1:]), start=col("bit1"))
    together = read(work / "windows.parquet", "*").groupby(*KEYS, "snapshot").agg(*done)
    write(together.select(*KEYS, "snapshot", union.cast("int32").alias("mask")), "positives")
    yield "positives"
    positives = read(work / "positives.parquet", "*")
    over = Window().partition_by("day").order_by("user", "item")
    placed = positives.with_column("place", row_number().over(over).cast("int64") - 1)
    sizes = positives.groupby("day").agg(col("item").count().cast("int64").alias("size"))
    draws = (
        placed.join(sizes, on="day")
        .join(daft.from_pydict({"k": list(range(DRAWS))}), how="cross")
        .with_column("place", daft.sql_expr(DRAW))
    )
    drawn = draws.select("day", "user", "snapshot", "place").join(
        placed.select("day", "place", "item"), on=["day", "place"]
    )
    new = drawn.join(positives, on=[*KEYS], how="anti").with_column("mask", lit(0).cast("int32"))
    columns = [*KEYS, "snapshot", "mask"]
    write(positives.select(*columns).concat(new.select(*columns)).sort([*KEYS]), "examples")
    yield "examples"


ENGINES: dict[str, Callable[[Path], Iterator[str]]] = {
    "duckdb": with_duckdb,
    "polars": with_polars,
    "spark": with_spark,
    "daft": with_daft,
}


def do(engine: str, work: Path) -> None:
    """Do all steps in this process, and print the seconds of each, and its processor time."""
    since, took = time.perf_counter(), {}
    for step in ENGINES[engine](work):
        now = time.perf_counter()
        took |= {step: now - since, "cpu": running_seconds(os.getpid())}
        since = now
    print(json.dumps(took))


def read_log(log: Path, work: Path) -> None:
    """Write the log as numbers, and the snapshot of every day, which all engines then read."""
    masks = " ".join(f"WHEN '{task}' THEN {1 << t}" for t, task in enumerate(TASKS))
    con = duckdb.connect(config={"memory_limit": DUCKDB_MEMORY, "temp_directory": str(work / "spill")})
    con.execute(
        f"COPY (SELECT user_id, item_id, CAST(epoch(timestamp) // 86400 AS BIGINT) AS day, "
        f"CAST(CASE behavior {masks} END AS INTEGER) AS mask FROM '{log}/**/*.parquet') "
        f"TO '{work / 'log.parquet'}'"
    )
    con.execute(
        f"COPY (SELECT day, CAST(ntile({WINDOWS}) OVER (ORDER BY day) AS INTEGER) AS snapshot "
        f"FROM (SELECT DISTINCT day FROM '{work / 'log.parquet'}')) TO '{work / 'days.parquet'}'"
    )


def mark(work: Path) -> tuple[int, int]:
    """The number of examples and a checksum that holds for any order of rows."""
    file = work / "examples.parquet"
    files = f"{file}/*.parquet" if file.is_dir() else str(file)
    numbers = "day * 7 + CAST(user AS BIGINT) * 31 + CAST(item AS BIGINT) * 17 + snapshot * 3 + mask"
    con = duckdb.connect()
    return con.execute(f"SELECT count(*), sum(hash({numbers})::HUGEINT) FROM '{files}'").fetchall()[0]


def compare(work: Path, size: str, engines: Sequence[str], rounds: int) -> None:
    """Let the engines do the work in turn, and print their figures."""
    spent: dict[str, list[Spent]] = {engine: [] for engine in engines}
    marks = {}
    for _ in range(rounds):
        for engine in [one for one in engines if one in spent]:
            place = work / engine
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            try:
                spent[engine].append(child(__file__, "--do", engine, "--work", place))
                marks[engine] = mark(place)
            except RuntimeError as error:
                print(f"{engine} failed: {' '.join(str(error).split())[-300:]}", file=sys.stderr)
                del spent[engine]
            shutil.rmtree(place)
    if len(set(marks.values())) > 1:
        raise RuntimeError(f"all engines must write the same rows, found {marks}")
    figures: dict[str, Callable[[Spent], float]] = {
        **{f"seconds.{step}": lambda one, step=step: json.loads(one.output)[step] for step in STEPS},
        "seconds": lambda one: one.seconds,
        "cpu_seconds": lambda one: json.loads(one.output)["cpu"],
        "peak_gib": lambda one: one.anonymous_gib,
    }
    for name, of in figures.items():
        base = median(map(of, spent["duckdb"])) if spent.get("duckdb") else None
        for engine, several in spent.items():
            value = median(map(of, several))
            unit = "GiB" if name == "peak_gib" else "s"
            line(f"engines.{name}.{engine}.{size}", value, unit, base, base and value / max(base, 1e-3))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    options = _parser().parse_args(arguments)
    if options.do:
        do(options.do, options.work)
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        for size in options.events.split(","):
            with simulated(work, float(size), options.keep) as world:
                place = work / f"engines-{world.name}"
                place.mkdir(parents=True, exist_ok=True)
                try:
                    read_log(world.log, place)
                    compare(place, world.name, options.engines.split(","), options.rounds)
                finally:
                    shutil.rmtree(place)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", default="1e7", help="sizes, comma between; 1e7 by default")
    parser.add_argument("--engines", default=",".join(ENGINES), help="comma between; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="3 by default; medians count")
    parser.add_argument("--work", type=Path, help="folder for logs; a temporary one by default")
    parser.add_argument("--keep", action="store_true", help="leave logs in --work")
    parser.add_argument("--do", choices=ENGINES, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    os.environ["POLARS_MAX_THREADS"] = str(THREADS)
    use_cores()
    main()
