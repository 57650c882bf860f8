"""An experiment in service: a unit has an arm, an arm answers by its own bundle, and answers are logged.

The control is the bundle that the service serves. It answers whoever is in no arm, and in the place of an
arm that cannot. An answer is on the disk before it is sent. The list of another arm, for a sample of the
requests, comes after the answer.
"""

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from mgoe.bundle.exploration import Exploration
from mgoe.bundle.steps import Steps
from mgoe.config import did_you_mean, load_experiment
from mgoe.config.assignment import arm_of, place
from mgoe.config.experiment import ExperimentSettings
from mgoe.errors import ConfigError, MgoeError, RequestError
from mgoe.serving.events.answer_log import Answer, AnswerLog
from mgoe.serving.http.interleaving import interleaved
from mgoe.serving.http.reloader import Reloader
from mgoe.serving.http.schemas import RecommendRequest
from mgoe.serving.http.telemetry import Telemetry, log
from mgoe.serving.http.watch import check_tasks, stamp
from mgoe.serving.scoring.engine import Engine
from mgoe.serving.scoring.ranking import Answered

WAITING = 8
"""Requests that are compared at once, at most; others are dropped."""
WRITERS = 8
"""Answers that are written at once; they share syncs."""
REASON = 200
"""Characters of a reason that are logged."""
Route = Literal["rank", "recommend"]


class Question(Protocol):
    """What is asked of the engine of an arm."""

    def __call__(self, engine: Engine, *, explore: Exploration | None = None) -> Steps[Answered]:
        """Answer in steps."""
        ...


class Asked(NamedTuple):
    """A request, and who answers it.

    Attributes:
        time: When it came, in microseconds since 1970.
        clock: When it came, by the clock of `time.perf_counter_ns`.
        id: Its id.
        route: What it asks for.
        request: What it holds.
        question: Asks an engine.
        running: The experiment; None if none runs.
        unit: What keeps its arm; None if it has none.
        arm: Number of its arm; None if it has none.
        mixed: Whether its lists are interleaved.
    """

    time: int
    clock: int
    id: str
    route: Route
    request: RecommendRequest
    question: Question
    running: ExperimentSettings | None
    unit: str | None
    arm: int | None
    mixed: bool


class Arm(Reloader):
    """A bundle that answers beside the served one.

    Args:
        served: What answers for the control.
        path: The arm's bundle.
        given: As for `Reloader`.

    Raises:
        BundleError: It has other tasks.
    """

    says = "arm serving", "arm stopped"

    def __init__(self, served: Reloader, path: Path, *given: Any, **named: Any):
        super().__init__(path, *given, **named)
        self._served = served
        check_tasks("an arm", self.engine.bundle, served.engine.bundle)

    async def take(self, engine: Engine) -> None:
        """Answer by another engine, unless it has other tasks."""
        check_tasks("an arm", engine.bundle, self._served.engine.bundle)
        await super().take(engine)


class Experiment:
    """The experiment of a service.

    Args:
        path: Its file, which is read again when it changes.
        served: What answers for the control.
        arm_at: Opens the arm of a bundle's path.
        log: The log of answers.
        every: Seconds between looks at the file.

    Raises:
        MgoeError: The file breaks a rule, or the bundle of an arm cannot answer.

    Attributes:
        settings: What holds now.
    """

    def __init__(
        self,
        path: Path,
        served: Reloader,
        arm_at: Callable[[Path], Reloader],
        log: AnswerLog,
        every: float = 1.0,
    ):
        self._path, self._log, self._every = path, log, every
        self.settings = load_experiment(path)
        self._stamp = stamp(path)
        check_control(self.settings, served.path, path)
        opened = {os.path.abspath(served.path): served}
        self._arms = list[Reloader]()
        for arm in self.settings.arms:
            at = arm.bundle or served.path
            key = os.path.abspath(at)
            if key not in opened:
                opened[key] = arm_at(at)
            self._arms.append(opened[key])
        served.beside = [one for one in opened.values() if one is not served]
        self._writers = ThreadPoolExecutor(WRITERS, "answers")  # at full priority: answers wait for them
        self._comparing = set[asyncio.Task[None]]()
        self._refused, self._away, self._failure = "", "", ""

    @asynccontextmanager
    async def running(self, telemetry: Telemetry) -> AsyncIterator[None]:
        """Follow the arms' bundles and the file while the block runs."""
        self._count, self._write_failures = telemetry.experiment, telemetry.write_failures
        async with AsyncExitStack() as stack:
            for one in self._arms[0].beside:
                await stack.enter_async_context(one.running(telemetry))
            watching = asyncio.create_task(self._watch())
            try:
                yield
            finally:
                watching.cancel()
                await asyncio.gather(watching, *self._comparing, return_exceptions=True)
                self._writers.shutdown()
                self._log.close()

    async def compared(self) -> None:
        """Wait until what is compared now is logged."""
        await asyncio.gather(*self._comparing)

    @property
    def detail(self) -> str | None:
        """What is not as it should be; None if nothing is."""
        said = self._away or self._refused
        return said or next((one.detail for one in self._arms[0].beside if one.detail), None)

    async def answer(
        self, route: Route, request_id: str, request: RecommendRequest, question: Question
    ) -> tuple[Engine, Answered, Callable[[], None]]:
        """Answer a request by its arm, and write the answer to the disk.

        Returns:
            What answered, the answer, and what is to be called when it is sent.

        Raises:
            RequestError: It names an arm that there is not.
            MgoeError: The control cannot answer, either.
        """
        asked = self._asked(route, request_id, request, question)
        control, reason, teams = self._arms[0].engine, None, None
        engine = control
        try:
            if asked.mixed and route == "recommend" and not request.max_per:
                answered, teams = await self._interleaved(asked)
            else:
                engine, answered, reason = await self._by_arm(asked, control)
        except BaseException as error:
            found = error.message if isinstance(error, MgoeError) else str(error) or type(error).__name__
            record = self._record(asked, control, None, "answer", "error", found)
            if isinstance(error, Exception):
                await self._write(record)
            else:  # out of time: nothing may wait
                self._writers.submit(self._append, record)
            raise
        status = "ok" if reason is None else "fallback"
        await self._write(self._record(asked, engine, answered, "answer", status, reason, teams))
        if asked.running is not None:
            named = {} if asked.arm is None else {"arm": asked.running.arms[asked.arm].name}
            answered = answered._replace(body=answered.body | {"experiment": asked.running.id} | named)
        return engine, answered, partial(self._offer, asked)

    def _asked(self, route: Route, request_id: str, request: RecommendRequest, question: Question) -> Asked:
        """Find the arm of a request."""
        one, came = self.settings, self._arms[0].engine.now()
        now = datetime.fromtimestamp(came / 1e6, UTC)
        begun = (one.start is None or one.start <= now) and (one.end is None or now < one.end)
        is_running = begun and not one.stop
        unit = request.unit if one.unit == "request" else None if request.user is None else str(request.user)
        names, arm, mixed = [arm.name for arm in one.arms], None, False
        if request.arm is not None and request.arm not in names:
            raise RequestError(
                "arm",
                f"must be one of the experiment {one.id}, found {request.arm[:80]!r}"
                + did_you_mean(request.arm, names),
            )
        if is_running and request.arm is not None:
            arm = names.index(request.arm)
        elif is_running and unit is not None and (arm := arm_of(one, unit)) is not None:
            mixed = place(f"{one.seed}:interleave", unit) < one.interleave
        return Asked(
            came, time.perf_counter_ns(), request_id, route, request, question,
            one if is_running else None, unit, None if mixed else arm, mixed,
        )  # fmt: skip

    async def _by_arm(self, asked: Asked, control: Engine) -> tuple[Engine, Answered, str | None]:
        """Let the arm of a request answer, or the control. Return why the arm did not."""
        if asked.running is None or asked.arm is None:
            return control, await in_turns(asked.question(control)), None
        engine = self._arms[asked.arm].engine
        try:
            return engine, await self._ask(asked, asked.running, asked.arm), None
        except Exception as error:
            if engine is control:
                raise
            answered = await in_turns(asked.question(control))
            if str(error) != self._failure:  # once, not for every request
                log("arm failed", logging.ERROR, error, error=str(error), bundle=engine.name)
            self._failure = str(error)
            return control, answered, str(error) or type(error).__name__

    async def _ask(self, asked: Asked, one: ExperimentSettings, arm: int) -> Answered:
        """Ask the engine of an arm, which explores as the arm does."""
        engine, how = self._arms[arm].engine, one.arms[arm].explore
        check_tasks("an arm", engine.bundle, self._arms[0].engine.bundle)
        seed = _number(f"{one.seed}:{one.arms[arm].name}:{asked.id}")
        return await in_turns(asked.question(engine, explore=Exploration(how, seed) if how else None))

    async def _interleaved(self, asked: Asked) -> tuple[Answered, list[str]]:
        """Let two arms make a list together."""
        assert asked.running is not None
        both = [await in_turns(asked.question(one.engine)) for one in self._arms]
        check_tasks("an arm", self._arms[1].engine.bundle, self._arms[0].engine.bundle)
        seed = _number(f"{asked.running.seed}:teams:{asked.id}")
        body, teams = interleaved(both[0].body, both[1].body, asked.request.k, seed)
        return both[0]._replace(body=body), [asked.running.arms[team].name for team in teams]

    def _offer(self, asked: Asked) -> None:
        """Compare a request some time, if it is one of the sample. Returns at once."""
        one = asked.running
        if one is None or asked.arm is None or place(f"{one.seed}:compare", asked.id) >= one.compare:
            return
        if len(self._comparing) >= WAITING:
            self._count.labels("dropped").inc()
            return
        task = asyncio.create_task(self._compare(asked, one, asked.arm))
        self._comparing.add(task)
        task.add_done_callback(self._comparing.discard)

    async def _compare(self, asked: Asked, one: ExperimentSettings, arm: int) -> None:
        """Log the list of another arm."""
        step = 1 + int(place(f"{one.seed}:other", asked.id) * (len(one.arms) - 1))
        other = (arm + step) % len(one.arms)
        asked = asked._replace(arm=other, clock=time.perf_counter_ns())
        engine = self._arms[other].engine
        try:
            answered = await self._ask(asked, one, other)
            await self._write(self._record(asked, engine, answered, "compare", "ok"))
        except Exception:  # the arm's own answers say why
            self._count.labels("failed").inc()

    def _record(
        self,
        asked: Asked,
        engine: Engine,
        answered: Answered | None,
        use: Literal["answer", "compare"],
        status: Literal["ok", "fallback", "error"],
        reason: str | None = None,
        teams: Sequence[str] | None = None,
    ) -> Answer:
        one, request, body = asked.running, asked.request, {} if answered is None else answered.body
        self._count.labels(status if use == "answer" else use).inc()
        return Answer(
            time=asked.time,
            request=asked.id,
            route=asked.route,
            user=None if request.user is None else str(request.user),
            unit=asked.unit,
            experiment=None if one is None else one.id,
            phase=None if one is None else one.phase,
            arm=None if one is None or asked.arm is None else one.arms[asked.arm].name,
            brought=request.arm is not None,
            use=use,
            version=engine.name,
            status=status,
            reason=None if reason is None else reason[:REASON],
            latency=(time.perf_counter_ns() - asked.clock) // 1000,
            items=[str(item) for item in body.get("items", ())],
            propensities=body["propensities"].tolist() if "propensities" in body else None,
            teams=teams,
        )

    async def _write(self, answer: Answer) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writers, self._append, answer)

    def _append(self, answer: Answer) -> None:
        """Write an answer. One that cannot be written is answered all the same, and counted."""
        try:
            self._log.append(answer)
        except Exception as error:
            if not self._away:
                log("answers are not logged", logging.ERROR, error, error=str(error))
            self._away = f"answers are not logged: {error}"
            self._write_failures.labels("answers").inc()
        else:
            self._away = ""

    async def _watch(self) -> None:
        """Read the file again when it changes; what it held before counts while it breaks a rule."""
        while True:
            await asyncio.sleep(self._every)
            if (found := stamp(self._path)) == self._stamp:
                continue
            self._stamp = found
            try:
                settings = await asyncio.to_thread(load_experiment, self._path)
                check_change(self.settings, settings, self._path)
            except MgoeError as error:
                self._refused = f"the experiment at {self._path} was refused: {error}"
                log("experiment refused", logging.ERROR, error, path=str(self._path), error=str(error))
            else:
                self.settings, self._refused = settings, ""
                log("experiment read", path=str(self._path), experiment=settings.id, phase=settings.phase)


def check_control(settings: ExperimentSettings, served: Path, place: Path) -> None:
    """Check that the first arm is the bundle that is served.

    Raises:
        ConfigError: It names another one.
    """
    own = settings.control.bundle
    if own is not None and os.path.abspath(own) != os.path.abspath(served):
        raise ConfigError(
            place,
            f"arms.0.bundle: the first arm is the control, which is the served bundle {served}, found {own}; "
            "leave it out, or serve that one",
        )


def check_change(before: ExperimentSettings, after: ExperimentSettings, place: Path) -> None:
    """Check that a service may take a changed file without a restart.

    Raises:
        ConfigError: It is another experiment, or has other arms.
    """
    first, second = ((one.id, [(arm.name, arm.bundle) for arm in one.arms]) for one in (before, after))
    if first != second:
        rule = "another id, other arms and other bundles need a restart of the service, found such"
        raise ConfigError(place, rule)


async def in_turns(steps: Steps[Answered]) -> Answered:
    """Carry out the steps. Between two of them other requests have their turn and a time limit can strike."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value
        await asyncio.sleep(0)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
