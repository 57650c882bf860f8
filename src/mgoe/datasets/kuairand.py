"""KuaiRand: exposures of short videos in Kuaishou, a part of them drawn at random, with a dozen signals."""

from functools import partial

from mgoe.datasets.dataset import DataSet, Download
from mgoe.datasets.reading import Workbench

_LOGS = {
    "log/standard_early": "log_standard_4_08_to_4_21_{}.csv",
    "log/standard_late": "log_standard_4_22_to_5_08_{}.csv",
    "random": "log_random_4_22_to_5_08_{}.csv",
}
_LABELS = {
    "click": "is_click",
    "long_view": "long_view",
    "like": "is_like",
    "comment": "is_comment",
    "forward": "is_forward",
    "follow": "is_follow",
    "hate": "is_hate",
    "profile_enter": "is_profile_enter",
}
_BEIJING = 8 * 3_600_000  # milliseconds ahead of UTC
_COLUMNS = ("user_id", "video_id", "hourmin", "time_ms", *_LABELS.values(), "play_time_ms", "is_rand", "tab")
_USER = (
    "user_active_degree",
    "is_lowactive_period",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{k}" for k in range(18)),
)
_VIDEO = ("author_id", "video_type", "upload_type", "music_type", "tag")


def write(bench: Workbench, version: str) -> dict[str, int]:
    """Write the three logs as three files, the random one beside the others, and the basic features.

    Moments are Beijing's, so that days are its days. The statistics of videos cover the whole month, so they
    are left out.
    """
    labels = ", ".join(f'{column}::TINYINT AS "{name}"' for name, column in _LABELS.items())
    for name, file in _LOGS.items():
        bench.convert(
            f"{name}.parquet",
            file.format(version),
            _COLUMNS,
            f"""user_id::BIGINT AS user_id, video_id::BIGINT AS item_id,
                epoch_ms(time_ms::BIGINT + {_BEIJING}) AS timestamp, {labels},
                (play_time_ms::DOUBLE / 1000)::FLOAT AS play,
                hourmin::INTEGER // 100 AS hour, tab::TINYINT AS tab,
                is_rand::TINYINT AS is_rand""",
        )
    bench.convert(
        "users.parquet",
        f"user_features_{version}.csv",
        ("user_id", *_USER),
        f"user_id::BIGINT AS user_id, {', '.join(_USER)}",
    )
    bench.convert(
        "items.parquet",
        f"video_features_basic_{version}.csv",
        ("video_id", *_VIDEO, "video_duration"),
        f"video_id::BIGINT AS item_id, {', '.join(_VIDEO)}, video_duration::DOUBLE AS video_duration",
    )
    return {}


def _version(name: str, unpacked: str, size: int, md5: str) -> DataSet:
    version = name.lower()
    return DataSet(
        name=f"kuairand-{version}",
        title=f"KuaiRand-{name}",
        form="exposures",
        tasks=("click", "long_view", "like", "comment", "forward", "follow"),
        home="https://kuairand.com",
        license="CC BY-SA 4.0",
        size=f"{size / 1e6:,.0f} MB, {unpacked} unpacked",
        files=(
            *(file.format(version) for file in _LOGS.values()),
            f"user_features_{version}.csv",
            f"video_features_basic_{version}.csv",
        ),
        write=partial(write, version=version),
        config="kuairand",
        time="both standard logs: a week history, then windows of 3 days, 3 to 5 May 2022 valid, 6 to 8 "
        "May test; buckets of 8 hours",
        published="train on the standard log of 8 to 21 April, valid and test on the videos shown at "
        "random from 22 April and 30 April: the unbiased test that the set was made for, in real time",
        layout="chongminggao/KuaiRand, README.md",
        downloads=(Download(f"https://zenodo.org/records/10439422/files/KuaiRand-{name}.tar.gz", size, md5),),
        notes="Features of users and videos were taken once, at a moment that is not published. "
        "video_features_statistic is left out: its means are over the whole month, test days too.",
    )


KUAIRAND = (
    _version("Pure", "194 MB", 47_432_272, "0820331067a3784d9691136f772b35a7"),
    _version("1K", "4.3 GB", 1_135_436_720, "6b0b9c8222d67fcd4c676218edca3f1f"),
)
