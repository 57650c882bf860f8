"""Pictures of the page, a report, a comparison and a model card, from a simulated log with names.

Run it in a clone, with the extras `serve` and `dev` and a Chromium:

    python examples/pictures.py pictures --images docs/images

It simulates a log, gives its items and users names, trains a model, and takes pictures of the page and the
report at phone and desktop widths, light and dark. With `--images` it compares three models too, and makes
the pictures that the pages show: `page.png` and those of `PICTURES`.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pandas as pd
from markdown_it import MarkdownIt
from playwright.sync_api import Page, sync_playwright

from mgoe import experiments
from mgoe.config import ComparisonSettings, make_settings
from mgoe.simulation import WorldSettings, simulate

KINDS = (
    ("camping", ("tent", "stove", "lantern", "sleeping bag", "rope")),
    ("kitchen", ("pan", "kettle", "knife", "mug", "grater")),
    ("garden", ("spade", "hose", "rake", "planter", "bench")),
    ("music", ("guitar", "drum", "keyboard", "flute", "amplifier")),
    ("running", ("shoe", "cap", "bottle", "watch", "jacket")),
    ("office", ("desk", "chair", "lamp", "notebook", "pen")),
    ("toys", ("puzzle", "kite", "robot", "doll", "train")),
    ("painting", ("easel", "brush", "canvas", "palette", "frame")),
)
MODELS = ("Alpine", "Bright", "Classic", "Dune", "Ember", "Fjord", "Grove", "Harbor", "Indigo", "Juniper")
PEOPLE = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ivo", "Jun", "Kai", "Lea", "Max", "Nia")
PICTURES = {
    "report": ("run/report.html", "body"),
    "groups": ("run/report.html", "#macro"),
    "lists": ("run/report.html", "#catalogue"),
    "arena": ("arena/comparison.html", "#t1"),
    "card": ("card.html", "body"),
}
"""The file of a picture, and the part of it at the top."""
STYLE = """
body { font: 17px/1.5 sans-serif; max-width: 62rem; margin: 2rem auto; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; border-bottom: 1px solid #ddd; }
pre { background: #f4f4f4; padding: 1rem; }
"""
"""Of the model card."""
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder for the log, the run and all pictures")
    parser.add_argument("--images", type=Path, help="folder of the pages' pictures")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--exposures", type=int, default=50_000)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    run, settings = given.out / "run", settings_of_log(given.out / "log", given.users, given.exposures)
    if not (run / "report.html").exists():
        experiments.run(make_settings(settings), run)
    if given.images:
        experiments.compare(comparison_of(settings), given.out / "arena")
        write_card(run / "bundle", given.out / "card.html")
    with served(run / "bundle", given.out / "state") as url, browser() as opened:
        for name, (width, height) in SIZES.items():
            for scheme in ("light", "dark"):
                page = opened.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                picture_of_page(page, url, given.out / f"page-{name}-{scheme}.png")
                page.goto((run / "report.html").absolute().as_uri())
                page.screenshot(path=given.out / f"report-{name}-{scheme}.png", full_page=True)
                page.close()
        if given.images:
            page = opened.new_page(viewport={"width": 1280, "height": 960}, color_scheme="light")
            picture_of_page(page, url, given.images / "page.png", whole=False)
            for name, (file, part) in PICTURES.items():
                page.goto((given.out / file).absolute().as_uri())
                page.locator(part).evaluate(
                    "part => { part.querySelectorAll('details.fold').forEach(fold => fold.open = part !== "
                    "document.body); part.scrollIntoView({behavior: 'instant'}); }"
                )
                page.screenshot(path=given.images / f"{name}.png")


def settings_of_log(folder: Path, users: int, exposures: int) -> dict[str, Any]:
    """Simulate a log with names, and return the settings of a run on it."""
    if not folder.exists():
        world = WorldSettings(
            users=users,
            items=users // 2,
            exposures=exposures,
            user_communities=8,
            item_communities=len(KINDS),
        )
        simulate(world, folder)
    write_names(folder)
    sides = {
        "users": {"path": str(folder / "users.parquet"), "id": "user_id", "name": "name"},
        "items": {
            "path": str(folder / "items.parquet"),
            "id": "item_id",
            "name": "title",
            "features": [{"name": "category"}],
        },
    }
    return {
        "data": {"log": str(folder / "events"), "truth": str(folder / "truth"), **sides},
        "tasks": ["click", "favour", "cart", "buy"],
        "models": ["mgoe", "shared-bottom+mgoe", "mmoe"],
    }


def comparison_of(settings: Mapping[str, Any]) -> ComparisonSettings:
    """Return the settings of a comparison of a run's models with two seeds."""
    log = {"data": settings["data"], "tasks": settings["tasks"]}
    return ComparisonSettings(logs={"shop": log}, models=settings["models"], seeds=[0, 1])


def write_card(bundle: Path, file: Path) -> None:
    """Write the model card of a bundle as a page."""
    text = MarkdownIt().enable("table").render((bundle / "MODEL_CARD.md").read_text(encoding="utf-8"))
    file.write_text(f"<!doctype html><meta charset='utf-8'><style>{STYLE}</style>{text}", encoding="utf-8")


def write_names(folder: Path) -> None:
    """Write side tables with made-up names; the category of an item is its community in the simulation."""
    items = pd.read_parquet(folder / "truth" / "items.parquet").sort_values("item_id")
    kinds = [KINDS[community % len(KINDS)] for community in items["community"]]
    place = items.groupby("community").cumcount()
    items["category"] = [name for name, _ in kinds]
    items["title"] = [
        f"{MODELS[n // 5 % len(MODELS)]} {things[n % 5]} {n // 50 + 1}"
        for (_, things), n in zip(kinds, place, strict=True)
    ]
    items[["item_id", "title", "category"]].to_parquet(folder / "items.parquet")
    users = pd.read_parquet(folder / "truth" / "users.parquet").sort_values("user_id")
    number = np.arange(len(users))
    users["name"] = [f"{PEOPLE[n % len(PEOPLE)]} {chr(65 + n // len(PEOPLE) % 26)}." for n in number]
    users[["user_id", "name"]].to_parquet(folder / "users.parquet")


def picture_of_page(page: Page, url: str, file: Path, whole: bool = True) -> None:
    """Open the page, rank, and take a picture once everything is there."""
    page.goto(url)
    page.wait_for_selector("#pair")
    page.screenshot(path=file, full_page=whole)


@contextmanager
def browser() -> Iterator:
    """Open a Chromium of the system, or the one of Playwright."""
    found = os.environ.get("MGOE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as running:
        opened = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@contextmanager
def served(bundle: Path, state: Path) -> Iterator[str]:
    """Serve a bundle as `mgoe serve` does while the block runs."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port = tried.getsockname()[1]
    command = [sys.executable, "-m", "mgoe", "serve", str(bundle), "--state", str(state), "--port", str(port)]
    process = subprocess.Popen([*command, "--no-access-log"], stderr=subprocess.DEVNULL)
    url, until = f"http://127.0.0.1:{port}/", time.monotonic() + 300
    try:
        while True:
            try:
                urlopen(url).close()
                break
            except URLError:
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError("the service did not start") from None
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
