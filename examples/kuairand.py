"""Make the exposure log of KuaiRand-Pure that the figures in docs/ are of.

For the published files use `mgoe data prepare kuairand-pure --from FOLDER --out kuairand`; docs/datasets.md
says how the two logs differ.

    python examples/kuairand.py FOLDER OUT

FOLDER holds `exposures.parquet` in the columns of the published `log_standard_*_pure.csv`, if there are any
`earlier.parquet` (exposures whose other labels are unknown) and `later.parquet` (further days), and
`user_features_pure.csv` and `video_features_basic_pure.csv`. OUT receives `log/*.parquet`, `users.parquet`
and `items.parquet`, which `examples/arena-kuairand.yaml` reads.

KuaiRand is by Gao et al. (CIKM 2022), https://kuairand.com, under CC BY-SA 4.0.
"""

import sys
from pathlib import Path

import duckdb

LABELS = {
    "click": "is_click",
    "long_view": "long_view",
    "like": "is_like",
    "profile_enter": "is_profile_enter",
    "comment": "is_comment",
    "follow": "is_follow",
    "forward": "is_forward",
}
"""Our names of the labels, and the published ones."""
TIME = "epoch_ms(time_ms + 8 * 3600000)"
"""The moment in Beijing, whose days are the windows."""


def main(folder: Path, out: Path) -> None:
    """Write the log and the two feature tables."""
    (out / "log").mkdir(parents=True, exist_ok=True)
    labels = ", ".join(f"{column}::TINYINT AS {name}" for name, column in LABELS.items())
    known = {"long_view": "long_view", "like": "is_like"}
    few = ", ".join(f"{known.get(name, 'NULL')}::TINYINT AS {name}" for name in LABELS)
    for name, columns in (
        ("exposures", f"{labels}, tab::TINYINT AS tab, hourmin::INTEGER // 100 AS hour"),
        ("later", f"{labels}, tab::TINYINT AS tab, hourmin::INTEGER // 100 AS hour"),
        ("earlier", f"{few}, NULL::TINYINT AS tab, NULL::INTEGER AS hour"),
    ):
        if (folder / f"{name}.parquet").exists():
            rows = duckdb.read_parquet(str(folder / f"{name}.parquet"))
            rows = rows.project(f"user_id, video_id AS item_id, {TIME} AS timestamp, {columns}")
            rows.write_parquet(str(out / "log" / f"{name}.parquet"))
    duckdb.read_csv(str(folder / "user_features_pure.csv")).write_parquet(str(out / "users.parquet"))
    videos = duckdb.read_csv(str(folder / "video_features_basic_pure.csv"))
    videos = videos.project("video_id AS item_id, * EXCLUDE (video_id)")
    videos.write_parquet(str(out / "items.parquet"))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
