"""What one process of a service opens, and how it ends."""

import gc
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from mgoe.bundle import Bundle
from mgoe.bundle.manifest import iso_time
from mgoe.bundle.membership import deployment_of
from mgoe.config import load_experiments
from mgoe.config.experiment import ArmSettings, ExperimentSettings, ShadowSettings
from mgoe.errors import AwayError, ConfigError
from mgoe.serving.events.answer_log import AnswerLog
from mgoe.serving.events.log import ServiceLog, every
from mgoe.serving.events.redis_log import RedisLog
from mgoe.serving.events.stores import open_log, with_query
from mgoe.serving.http.app import create_app
from mgoe.serving.http.experiment import Experiment, check_control
from mgoe.serving.http.middleware import UNCOUNTED, problem
from mgoe.serving.http.reloader import Reloader
from mgoe.serving.http.settings import ServeSettings
from mgoe.serving.http.telemetry import log
from mgoe.serving.http.tokens import Tokens, read_tokens
from mgoe.serving.http.watch import Watch, check_tasks, is_opening
from mgoe.serving.online.base_values import item_rows
from mgoe.serving.scoring.engine import Clock
from mgoe.serving.scoring.onnx_export import NEEDED, package

SWITCH = 0.001
"""Seconds after which a thread gives another its turn. Python's own 0.005 is long for requests of one or two
milliseconds."""


def check_start(settings: ServeSettings) -> None:
    """Check what every worker needs: a worker that does not start would be started again, without end.

    Raises:
        MgoeError: The bundle, its model, the extra or the store is missing, an event cannot be read, the
            exposures have another window, or the state cannot be written.
    """
    bundle, state = Bundle.open(settings.bundle), state_of(settings)
    if experiments := read_experiments(settings):
        for experiment, place in zip(experiments, settings.experiment or [settings.bundle], strict=True):
            check_control(experiment, settings.bundle, place)
            for arm in experiment.arms:
                check_tasks("an arm", Bundle.open(arm.bundle or settings.bundle), bundle)
        AnswerLog(state).close()
    for name in NEEDED if settings.runtime.engine == "onnx" else ():
        package(name)
    bundle.model  # noqa: B018 - the module of a user's own model may be missing here
    events = events_of(settings)
    with suppress(AwayError):
        events.claim(bundle.tasks, deployment_of(bundle))
        for _ in every(events):
            pass
    events.close()
    item_rows(bundle.graph, state)


class OnClock:
    """An application whose present is what a supplied clock says.

    Before each request, everything that was acknowledged is counted as of the clock, and the lists that are
    compared are logged. So if one client sends one request after the other, the answers are a function of the
    requests, of their ids and of the clock.

    Args:
        app: What answers.
        clock: The clock, which is set between requests. If it goes back, requests are refused until it is as
            far as it was.
        reloader: Has what the application answers by.
        experiment: Of the application, if it has one.
    """

    def __init__(self, app: ASGIApp, clock: Clock, reloader: Reloader, experiment: Experiment | None):
        self._app, self._clock, self._reloader, self._experiment = app, clock, reloader, experiment
        self._latest = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"] not in UNCOUNTED:
            if (now := self._clock()) < self._latest:
                await problem(
                    503,
                    f"must not go back, found {iso_time(now)} after {iso_time(self._latest)}; set it ahead",
                    "clock",
                )(scope, receive, send)
                return
            self._latest = now
            if self._experiment is not None:
                await self._experiment.caught_up()
            await self._reloader.caught_up()
        await self._app(scope, receive, send)


def application(settings: ServeSettings, clock: Clock | None = None) -> ASGIApp:
    """Open what the settings name.

    Args:
        settings: The settings.
        clock: See `OnClock`; None for the system's clock.

    Raises:
        MgoeError: What they name cannot be opened, or was written after what the clock says.
    """
    state, tokens = state_of(settings), Tokens(partial(read_tokens, settings))
    events = events_of(settings)
    with suppress(AwayError):
        if isinstance(events, RedisLog) and events.durable is False:
            log(
                "events may be lost",
                logging.WARNING,
                store="redis",
                error="a crash of Redis loses events that were acknowledged; "
                "give Redis `appendonly yes` and `appendfsync always`",
            )
    if clock is not None and events.before((now := clock()) + 1) < events.newest[0]:
        raise ConfigError(
            "clock",
            f"must not be behind the log, which has exposures taken after {iso_time(now)}; set it ahead, or "
            "begin with another --state",
        )
    reloader = Reloader(settings.bundle, events, state, settings.runtime, clock=clock, url=settings.url)
    experiment = experiment_of(settings, reloader, clock)
    app = create_app(
        reloader,
        settings.limits,
        tokens,
        settings.access_log,
        local=not (tokens.granted or settings.public),
        experiment=experiment,
    )
    return app if clock is None else OnClock(app, clock, reloader, experiment)


def events_of(settings: ServeSettings) -> ServiceLog:
    """Open the log, which becomes one of the bundle's deployment if that was asked for."""
    events = open_log(logs_of(settings), settings.wait)
    if settings.adopt and (ours := deployment_of(Bundle.open(settings.bundle, verify=False))) is not None:
        events.move(ours)
    return events


def read_experiments(settings: ServeSettings) -> list[ExperimentSettings]:
    """Return the experiments of a service; a shadow alone is one with the served bundle as its only arm.

    Raises:
        ConfigError: A file breaks a rule.
    """
    shadow = settings.shadow and ShadowSettings(bundle=settings.shadow, share=settings.shadow_share)
    found = load_experiments(settings.experiment)
    if shadow is None:
        return found
    if not found:
        arms = [ArmSettings(name="served", share=1)]
        return [ExperimentSettings(id="shadow", arms=arms, shadow=shadow)]
    return [found[0].model_copy(update={"shadow": shadow}), *found[1:]]


def experiment_of(settings: ServeSettings, reloader: Reloader, clock: Clock | None) -> Experiment | None:
    """Return the experiments, whose arms read the logs by themselves, so that none waits for another."""
    state, logs, first = state_of(settings), logs_of(settings), read_experiments(settings)
    if not first:
        return None

    def opens(kind: Callable[..., Watch], bundle: Path) -> Any:
        return kind(reloader, bundle, open_log(logs), state, settings.runtime, clock=clock)

    return Experiment(
        lambda: read_experiments(settings),
        settings.experiment,
        reloader,
        opens,
        AnswerLog(state, experiments=[one.id for one in first]),
    )


def alone(app: ASGIApp) -> ASGIApp:
    """Set up a process that has no work but to serve what is open now."""
    sys.setswitchinterval(SWITCH)
    gc.collect()
    gc.freeze()  # no request has to wait while a collection goes through what is there now
    return app


def state_of(settings: ServeSettings) -> Path:
    """Return the folder of the state; by default beside the bundle, or beside the link that is served."""
    bundle = settings.bundle
    if bundle.name in ("", ".."):
        bundle = Path(os.path.abspath(bundle))
    return settings.state or bundle.parent / f"{bundle.name}.state"


def logs_of(settings: ServeSettings) -> str:
    """Return where the log is, as `open_log` takes it."""
    state, file = state_of(settings), settings.redis_password_file
    return with_query(settings.redis, state=state, password_file=file) if settings.redis else str(state)


def leave() -> None:
    """End the process here if a bundle is still being opened, once all requests are answered.

    Python would end that thread by itself, possibly in the midst of C++, which aborts the process.
    """
    if is_opening():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
