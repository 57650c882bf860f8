"""Pictures of the page and of a report, from a simulated log whose items and users have names.

Run it in a clone, with the extras `serve` and `dev` and a Chromium:

    python examples/pictures.py pictures --images docs/images

It simulates a log, gives its items and users names, trains a model, and takes pictures of the page and the
report at phone and desktop widths, light and dark. `--images` makes those of the pages.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pandas as pd
from playwright.sync_api import Page, sync_playwright

from mgoe import experiments
from mgoe.config import RunSettings, make_settings
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
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder for the log, the run and all pictures")
    parser.add_argument("--images", type=Path, help="folder that gets page.png and report.png")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--exposures", type=int, default=100_000)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    run = given.out / "run"
    if not (run / "report.html").exists():
        experiments.run(settings_of_log(given.out / "log", given.users, given.exposures), run)
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
            page.goto((run / "report.html").absolute().as_uri())
            page.screenshot(path=given.images / "report.png")


def settings_of_log(folder: Path, users: int, exposures: int) -> RunSettings:
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
    return make_settings(
        {
            "data": {"log": str(folder / "events"), "truth": str(folder / "truth"), **sides},
            "tasks": ["click", "favour", "cart", "buy"],
            "models": ["mgoe", "shared-bottom+mgoe", "mmoe"],
        }
    )


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
