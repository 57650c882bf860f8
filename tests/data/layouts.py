"""Public logs in miniature: the columns of each in their published form, and a few hundred rows whose
relations are right."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

Frame = pd.DataFrame
ROWS = 400
START = pd.to_datetime("2024-03-01")


class Visits(NamedTuple):
    """Rows of users who come back, each time for a session of a few items, popular ones more often."""

    user: np.ndarray
    session: np.ndarray
    item: np.ndarray
    seconds: np.ndarray
    """Since `START`, rising within a session."""


def visits(
    seed: int = 0, users: int = 60, items: int = 50, sessions: int = 110, same_time: bool = False
) -> Visits:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 7, sessions)
    session = np.repeat(np.arange(sessions), lengths)
    user = rng.integers(0, users, sessions)[session]
    item = np.minimum(rng.geometric(0.06, len(session)) - 1, items - 1)
    begin = np.sort(rng.integers(0, 40 * 86_400, sessions))
    step = np.arange(len(session)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return Visits(user, session, item, begin[session] + (0 if same_time else step * 47))


def times(seconds: Any) -> pd.Series:
    return pd.Series(START + pd.to_timedelta(np.asarray(seconds), unit="s"))


def epoch(seconds: Any, scale: int = 1) -> np.ndarray:
    return (int(START.timestamp()) + np.asarray(seconds)) * scale


def of(values: np.ndarray, categories: int, seed: int = 7) -> np.ndarray:
    """A property of each value, such as the category of an item."""
    return np.random.default_rng(seed).integers(0, categories, values.max() + 1)[values]


def funnel(seen: Visits, follow: list[float], seed: int = 3) -> tuple[Visits, np.ndarray]:
    """Rows in which later steps follow earlier ones on the same user and item, with a probability each."""
    rng = np.random.default_rng(seed)
    kept, step = [np.arange(len(seen.user))], [np.zeros(len(seen.user), int)]
    for number, share in enumerate(follow, start=1):
        kept.append(kept[-1][rng.random(len(kept[-1])) < share])
        step.append(np.full(len(kept[-1]), number))
    rows, steps = np.concatenate(kept), np.concatenate(step)
    seconds = seen.seconds[rows] + 11 * steps
    order = np.lexsort((steps, seconds))
    rows = rows[order]
    return Visits(seen.user[rows], seen.session[rows], seen.item[rows], seconds[order]), steps[order]


def ratings(low: float, high: float, step: float = 1.0, count: int = ROWS, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.arange(low, high + step / 2, step), count)


def online_retail() -> Frame:
    v = visits(1, same_time=True)
    rng = np.random.default_rng(1)
    back = np.isin(v.session, np.arange(0, 110, 12))
    nobody = np.isin(v.session, np.arange(5, 110, 9))
    return pd.DataFrame(
        {
            "Invoice": [
                f"C{536365 + s}" if b else str(536365 + s) for s, b in zip(v.session, back, strict=True)
            ],
            "StockCode": [f"{85000 + i}{'A' if i % 5 == 0 else ''}" for i in v.item],
            "Description": [f"WHITE LANTERN NO {i}" for i in v.item],
            "Quantity": np.where(back, -1, 1) * rng.integers(1, 13, len(v.item)),
            "InvoiceDate": times(v.seconds).dt.strftime("%Y-%m-%d %H:%M:%S"),
            "Price": (of(v.item, 900) / 100 + 0.42).round(2),
            "Customer ID": np.where(nobody, np.nan, 12346.0 + v.user),
            "Country": np.array(["United Kingdom", "France", "EIRE", "Germany"])[of(v.user, 4)],
        }
    )


def retailrocket() -> Frame:
    v, step = funnel(visits(2), [0.3, 0.5])
    bought = np.where(step == 2, v.session.astype(float), np.nan)
    names = np.array(["view", "addtocart", "transaction"])
    return pd.DataFrame(
        {
            "timestamp": epoch(v.seconds, 1000),
            "visitorid": v.user + 257_597,
            "event": names[step],
            "itemid": v.item + 355_908,
            "transactionid": bought,
        }
    )


def rees46() -> Frame:
    v, step = funnel(visits(3), [0.35, 0.4])
    names = np.array(["view", "cart", "purchase"])
    return pd.DataFrame(
        {
            "event_time": times(v.seconds).dt.strftime("%Y-%m-%d %H:%M:%S UTC"),
            "event_type": names[step],
            "product_id": v.item + 1_004_833,
            "category_id": of(v.item, 9) + 2_053_013_555_631_882_655,
            "category_code": [f"electronics.c{k}" for k in of(v.item, 9)],
            "brand": [f"brand{k}" for k in of(v.item, 12, 8)],
            "price": of(v.item, 90_000) / 100,
            "user_id": v.user + 512_388_419,
            "user_session": [f"{s:08x}-e5a1-4d33" for s in v.session],
        }
    )


def instacart() -> Frame:
    v = visits(4, same_time=True)
    return pd.DataFrame(
        {
            "order_id": v.session + 2_539_329,
            "user_id": v.user,
            "eval_set": "prior",
            "order_number": v.session % 30 + 1,
            "order_dow": of(v.session, 7),
            "order_hour_of_day": of(v.session, 24),
            "days_since_prior_order": of(v.session, 30).astype(float),
            "product_id": v.item,
            "add_to_cart_order": np.arange(len(v.item)) % 20 + 1,
            "reordered": np.arange(len(v.item)) % 3 // 2,
        }
    )


def movielens() -> Frame:
    v = visits(5)
    return pd.DataFrame(
        {
            "userId": v.user,
            "movieId": v.item,
            "rating": ratings(0.5, 5, 0.5, len(v.item)),
            "timestamp": epoch(v.seconds),
        }
    )


def lastfm_1k() -> Frame:
    v = visits(6, users=25)
    track = pd.Series([f"f1b1cf71-bd35-{i:04x}" for i in v.item])
    return pd.DataFrame(
        {
            "userid": [f"user_{u:06d}" for u in v.user],
            "timestamp": times(v.seconds).dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "musicbrainz-artist-id": [f"a7f7df4a-77d8-{a:04x}" for a in of(v.item, 22)],
            "artist-name": [f"Artist {a}" for a in of(v.item, 22)],
            "musicbrainz-track-id": track.where(v.item % 11 != 10),
            "track-name": [f"Song No. {i}" for i in v.item],
        }
    )


def yelp() -> Frame:
    v = visits(7)
    rng = np.random.default_rng(7)
    count = len(v.item)
    return pd.DataFrame(
        {
            "review_id": [f"r{k:05d}" for k in range(count)],
            "user_id": [f"u{u}" for u in v.user],
            "business_id": [f"b{i}" for i in v.item],
            "stars": ratings(1, 5, 1, count),
            "useful": rng.poisson(1, count),
            "funny": rng.poisson(0.3, count),
            "cool": rng.poisson(0.4, count),
            "text": [f"We came here {k} times" for k in range(count)],
            "date": times(v.seconds).dt.strftime("%Y-%m-%d %H:%M:%S"),
        }
    )


def criteo_attribution() -> Frame:
    v = visits(8)
    clicked = np.arange(len(v.item)) % 3 == 0
    return pd.DataFrame(
        {
            "timestamp": v.seconds,
            "uid": v.user + 20_073_966,
            "campaign": v.item + 22_589_171,
            "conversion": (np.arange(len(v.item)) % 12 == 0).astype(int),
            "conversion_timestamp": -1,
            "click": clicked.astype(int),
            "cost": 1e-5,
            "cat1": of(v.item, 6) + 5_824_233,
        }
    )


def mind() -> Frame:
    v = visits(9, users=90)
    return pd.DataFrame(
        {
            "impression_id": v.session,
            "user_id": [f"U{u}" for u in v.user],
            "time": times(v.seconds // 300 * 300),
            "position": np.arange(len(v.item)) % 9,
            "news_id": [f"N{i}" for i in v.item],
            "clicked": (np.arange(len(v.item)) % 5 == 0).astype(int),
        }
    )


def mind_published() -> Frame:
    v = visits(9, users=90)
    return pd.DataFrame(
        {
            "impression_id": np.arange(len(v.item)),
            "user_id": [f"U{u}" for u in v.user],
            "time": times(v.seconds).dt.strftime("%-m/%-d/%Y %-I:%M:%S %p"),
            "history": "N55189 N42782",
            "impressions": [f"N{i}-1 N{i + 1}-0" for i in v.item],
        }
    )


def yoochoose() -> Frame:
    v = visits(10, users=110, sessions=160)
    return pd.DataFrame(
        {
            "session_id": v.session,
            "timestamp": times(v.seconds).dt.strftime("%Y-%m-%dT%H:%M:%S.277Z"),
            "item_id": v.item + 214_536_502,
            "category": np.where(of(v.item, 5) == 0, "S", of(v.item, 5).astype(str)),
        }
    )


def hm() -> Frame:
    v = visits(11)
    return pd.DataFrame(
        {
            "t_dat": times(v.seconds).dt.strftime("%Y-%m-%d"),
            "customer_id": [f"{u:064x}" for u in v.user],
            "article_id": v.item + 663_713_001,
            "price": of(v.item, 90) / 1000 + 0.001,
            "sales_channel_id": v.session % 2 + 1,
        }
    )


def steam() -> Frame:
    v = visits(12)
    return pd.DataFrame(
        {
            "user-id": v.user + 151_603_712,
            "game-title": [f"Half-Life {i}" for i in v.item],
            "behavior-name": np.resize(["purchase", "play"], len(v.item)),
            "value": np.resize([1.0, 27.3], len(v.item)),
        }
    )


def book_crossing() -> Frame:
    v = visits(13)
    return pd.DataFrame(
        {
            "User-ID": v.user,
            "ISBN": [f"{i:09d}X" for i in v.item],
            "Book-Rating": ratings(0, 10, 1, len(v.item)),
        }
    )


def goodreads() -> Frame:
    v = visits(14)
    return pd.DataFrame(
        {
            "user_id": [f"{u:032x}" for u in v.user],
            "book_id": v.item,
            "review_id": [f"{k:032x}" for k in range(len(v.item))],
            "is_read": np.arange(len(v.item)) % 4 > 0,
            "rating": ratings(0, 5, 1, len(v.item)),
            "review_text_incomplete": "",
            "date_added": times(v.seconds).dt.strftime("%Y-%m-%dT%H:%M:%S-0700"),
        }
    )


def taobao() -> Frame:
    v, step = funnel(visits(15), [0.4, 0.5, 0.4])
    return pd.DataFrame(
        {
            "user_id": v.user,
            "item_id": v.item + 2_268_318,
            "category_id": of(v.item, 30) + 2_520_377,
            "behavior_type": np.array(["pv", "fav", "cart", "buy"])[step],
            "timestamp": epoch(v.seconds),
        }
    )


def diginetica() -> Frame:
    v = visits(16, sessions=140)
    return pd.DataFrame(
        {
            "sessionId": v.session,
            "userId": np.where(v.session % 20 == 0, v.user + 18_278.0, np.nan),
            "itemId": v.item + 81_766,
            "timeframe": (v.seconds % 900) * 1000 + 526,
            "eventdate": times(v.seconds).dt.strftime("%Y-%m-%d"),
        }
    )


def amazon() -> Frame:
    v = visits(17)
    count = len(v.item)
    return pd.DataFrame(
        {
            "rating": ratings(1, 5, 1, count),
            "title": [f"Works {k}" for k in range(count)],
            "text": [f"I bought {k}" for k in range(count)],
            "asin": [f"B00{i:05d}" for i in v.item],
            "parent_asin": [f"B00{i // 2:05d}" for i in v.item],
            "user_id": [f"AG{u:010d}" for u in v.user],
            "timestamp": epoch(v.seconds, 1000),
            "helpful_vote": np.random.default_rng(0).poisson(1, count),
            "verified_purchase": np.arange(count) % 7 > 0,
        }
    )


def gowalla() -> Frame:
    v = visits(18, items=40)
    return pd.DataFrame(
        {
            "user": v.user,
            "check-in time": times(v.seconds).dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "latitude": 30 + of(v.item, 10**6) / 10**6,
            "longitude": -97 - of(v.item, 10**6, 8) / 10**6,
            "location id": v.item + 22_847,
        }
    )


def globo() -> Frame:
    v = visits(19, items=80)
    start = epoch(
        np.minimum.reduceat(v.seconds, np.flatnonzero(np.diff(v.session, prepend=-1)))[v.session], 1000
    )
    return pd.DataFrame(
        {
            "user_id": v.user,
            "session_id": start // 1000 * 100 + v.session,
            "session_start": start,
            "session_size": np.bincount(v.session)[v.session],
            "click_article_id": v.item + 160_974,
            "click_timestamp": epoch(v.seconds, 1000),
            "click_environment": np.where(v.session % 30 == 0, 2, 4),
            "click_deviceGroup": np.array([1, 3, 4])[of(v.session, 3)],
            "click_os": np.array([2, 17, 20])[of(v.session, 3)],
            "click_country": np.where(of(v.user, 9) == 0, 10, 1),
            "click_region": of(v.user, 28),
            "click_referrer_type": np.array([1, 2, 5, 6, 7, 3, 4])[of(v.session, 7, 11)],
        }
    )


def open_bandit() -> Frame:
    v = visits(20)
    count = len(v.item)
    hashes = {f"user_feature_{k}": [f"{x:032x}" for x in of(v.user, 4 + 2 * k, k)] for k in range(4)}
    affinity = {
        f"user-item_affinity_{k}": np.random.default_rng(k).poisson(0.05, count) * 1.0 for k in range(3)
    }
    return pd.DataFrame(
        {
            "timestamp": times(v.seconds).dt.strftime("%Y-%m-%d %H:%M:%S.%f+00:00"),
            "item_id": v.item,
            "position": np.arange(count) % 3 + 1,
            "click": (np.arange(count) % 40 == 0).astype(int),
            "propensity_score": 0.0125 * (1 + v.item % 7),
            **hashes,
            **affinity,
        }
    )


def complete_journey() -> Frame:
    v = visits(21, same_time=True)
    rng = np.random.default_rng(21)
    count = len(v.item)
    log = pd.DataFrame(
        {
            "household_id": v.user + 900,
            "store_id": of(v.user, 25) + 330,
            "basket_id": v.session + 31_198_570_044,
            "product_id": v.item + 1_095_275,
            "quantity": rng.integers(1, 4, count),
            "sales_value": (rng.random(count) * 5).round(2),
            "retail_disc": (rng.random(count)).round(2),
            "coupon_disc": 0.0,
            "coupon_match_disc": 0.0,
            "week": v.seconds // (7 * 86_400) + 1,
            "transaction_timestamp": times(v.seconds),
        }
    )
    return log.loc[log.quantity < 4]  # a filter leaves an index in a file


def kuairand() -> Frame:
    v = visits(22)
    rng = np.random.default_rng(22)
    count = len(v.item)
    labels = {
        f"is_{name}": (rng.random(count) < share).astype(int)
        for name, share in (("click", 0.4), ("like", 0.1), ("follow", 0.03), ("hate", 0.02))
    }
    return pd.DataFrame(
        {
            "user_id": v.user,
            "video_id": v.item,
            "date": times(v.seconds).dt.strftime("%Y%m%d").astype(int),
            "hourmin": times(v.seconds).dt.strftime("%H00").astype(int),
            "time_ms": epoch(v.seconds, 1000),
            **labels,
            "long_view": (rng.random(count) < 0.3).astype(int),
            "play_time_ms": rng.integers(0, 90_000, count),
            "duration_ms": of(v.item, 90_000) + 5_000,
            "is_rand": (rng.random(count) < 0.1).astype(int),
            "tab": of(v.session, 5),
        }
    )


def tenrec() -> Frame:
    v = visits(23)
    rng = np.random.default_rng(23)
    labels = {name: rng.integers(0, 2, len(v.item)) for name in ("click", "follow", "like", "share")}
    return pd.DataFrame(
        {
            "user_id": v.user,
            "item_id": v.item,
            **labels,
            "video_category": of(v.item, 2),
            "watching_times": rng.integers(0, 4, len(v.item)),
            "gender": of(v.user, 3),
            "age": of(v.user, 8),
        }
    )


def movietweetings() -> Frame:
    v = visits(24)
    return pd.DataFrame(
        {
            "user_id": v.user,
            "movie_id": v.item + 114_508,
            "rating": ratings(0, 10, 1, len(v.item)),
            "rating_timestamp": epoch(v.seconds),
        }
    )


def dressipi() -> Frame:
    v = visits(25, sessions=150)
    return pd.DataFrame(
        {
            "session_id": v.session,
            "item_id": v.item,
            "date": times(v.seconds).dt.strftime("%Y-%m-%d %H:%M:%S.373"),
        }
    )


def beeradvocate() -> Frame:
    v = visits(26)
    count = len(v.item)
    marks = {
        f"review_{name}": ratings(1, 5, 0.5, count, seed=k)
        for k, name in enumerate(("aroma", "appearance", "palate", "taste"))
    }
    return pd.DataFrame(
        {
            "brewery_id": of(v.item, 24),
            "brewery_name": [f"Brewery {k}" for k in of(v.item, 24)],
            "review_time": epoch(v.seconds),
            "review_overall": ratings(1, 5, 0.5, count, seed=9),
            **marks,
            "review_profilename": [f"drinker{u}" for u in v.user],
            "beer_style": [f"Style {k}" for k in of(v.item, 21, 5)],
            "beer_name": [f"Hefe Weizen {i}" for i in v.item],
            "beer_abv": of(v.item, 90) / 10,
            "beer_beerid": v.item + 47_986,
        }
    )


def jdata() -> Frame:
    """Codes of behaviours whose order is not that of what they mean: 6 is a click, 1 a page, 2 a cart, 4 an
    order."""
    v, step = funnel(visits(27, sessions=160), [0.5, 0.5, 0.6])
    return pd.DataFrame(
        {
            "user_id": v.user + 200_000,
            "sku_id": v.item + 100_000,
            "time": times(v.seconds),
            "model_id": np.where(v.session % 3 == 0, np.nan, of(v.session, 9) + 210.0),
            "type": np.array([6, 1, 2, 4])[step],
            "cate": of(v.item, 6) + 4,
            "brand": of(v.item, 30) + 200,
        }
    )


def tmall_published() -> Frame:
    v, step = funnel(visits(28), [0.4, 0.4])
    return pd.DataFrame(
        {
            "user_id": v.user,
            "item_id": v.item,
            "cat_id": of(v.item, 9),
            "seller_id": of(v.item, 14, 3),
            "brand_id": of(v.item, 15, 4),
            "time_stamp": times(v.seconds).dt.strftime("%m%d").astype(int),
            "action_type": np.array([0, 3, 2])[step],
        }
    )


def olist() -> Frame:
    v = visits(29, same_time=True)
    return pd.DataFrame(
        {
            "order_id": [f"{s:032x}" for s in v.session],
            "customer_id": [f"{s + 10**6:032x}" for s in v.session],
            "customer_unique_id": [f"{u + 10**9:032x}" for u in v.user],
            "order_item_id": np.arange(len(v.item)) % 5 + 1,
            "product_id": [f"{i + 10**7:032x}" for i in v.item],
            "seller_id": [f"{k + 10**8:032x}" for k in of(v.item, 24)],
            "price": of(v.item, 9_000) / 100,
            "freight_value": of(v.session, 900) / 100,
            "order_purchase_timestamp": times(v.seconds).dt.strftime("%Y-%m-%d %H:%M:%S"),
        }
    )
