"""An experiment in service: a unit has an arm, an arm answers by its own bundle, and answers are logged.

The control is the bundle that the service serves. It answers whoever is in no arm, and in the place of an
arm that cannot. An answer is on the disk before it is sent. What nobody gets comes after the answer, for a
sample of the requests: the list of another arm, and the scores of a shadow. With one arm there is nothing to
assign, and only the shadow is logged.
"""

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from mgoe.bundle.exploration import Exploration
from mgoe.bundle.steps import Steps
from mgoe.config import did_you_mean
from mgoe.config.assignment import arm_of, is_in, place
from mgoe.config.experiment import ExperimentSettings
from mgoe.errors import ConfigError, MgoeError, RequestError
from mgoe.serving.events.answer_log import Answer, AnswerLog
from mgoe.serving.http.interleaving import interleaved
from mgoe.serving.http.reloader import Reloader
from mgoe.serving.http.schemas import RecommendRequest
from mgoe.serving.http.shadow import Shadow
from mgoe.serving.http.telemetry import Telemetry, log
from mgoe.serving.http.watch import Watch, check_tasks, stamp
from mgoe.serving.scoring.engine import Engine
from mgoe.serving.scoring.ranking import Answered

Aside = Literal["compare", "shadow"]
"""What comes after an answer, and nobody gets."""
WAITING: dict[Aside, int] = {"compare": 8, "shadow": 32}
"""Requests that wait for it, at most; others are dropped."""
WRITERS = 8
"""Answers that are written at once; they share syncs."""
REASON = 200
"""Characters of a reason that are logged."""
Route = Literal["rank", "recommend", "score"]


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
    """The experiments of a service, of which each unit is in one at most.

    Args:
        read: Returns their settings.
        paths: Their files, after whose changes they are read again; none for a shadow alone.
        served: What answers for the control.
        opens: Opens an arm, or a shadow, with the bundle at a path.
        log: The log of answers.
        every: Seconds between looks at the files.

    Raises:
        MgoeError: A file breaks a rule, or the bundle of an arm cannot answer.

    Attributes:
        settings: What holds now, one per experiment.
        shadow: That of the first; None without one.
        answers: Whether there are arms to answer by.
    """

    def __init__(
        self,
        read: Callable[[], list[ExperimentSettings]],
        paths: Sequence[Path],
        served: Reloader,
        opens: Callable[[Callable[..., Watch], Path], Any],
        log: AnswerLog,
        every: float = 1.0,
    ):
        self._read, self._paths, self._log, self._every = read, paths, log, every
        self._stamps, self.settings = [*map(stamp, paths)], read()
        for one, path in zip(self.settings, paths or [served.path], strict=True):
            check_control(one, served.path, path)
        own = self.settings[0].shadow
        self.shadow: Shadow | None = own and opens(Shadow, own.bundle)
        self.answers = any(len(one.arms) > 1 for one in self.settings)
        self._served, opened = served, {Path(os.path.abspath(served.path)): served}
        self._arms = dict[str, list[Reloader]]()
        for one in self.settings:
            places = [Path(os.path.abspath(arm.bundle or served.path)) for arm in one.arms]
            opened |= {path: opens(Arm, path) for path in dict.fromkeys(places) if path not in opened}
            self._arms[one.id] = [opened[path] for path in places]
        served.beside = [*opened.values()][1:]
        self._writers = ThreadPoolExecutor(WRITERS, "answers")  # at full priority: answers wait for them
        self._asides = set[asyncio.Task[None]]()
        self._refused, self._away, self._failures = "", "", dict[str, str]()

    @asynccontextmanager
    async def running(self, telemetry: Telemetry) -> AsyncIterator[None]:
        """Follow the arms' bundles and the files while the block runs."""
        self._count, self._write_failures = telemetry.experiment, telemetry.write_failures
        self._counts = {"compare": (telemetry.experiment, "compare"), "shadow": (telemetry.shadow, "logged")}
        async with AsyncExitStack() as stack:
            for one in filter(None, (*self._served.beside, self.shadow)):
                await stack.enter_async_context(one.running(telemetry))
            watching = asyncio.create_task(self._watch())
            try:
                yield
            finally:
                watching.cancel()
                await asyncio.gather(watching, *self._asides, return_exceptions=True)
                self._writers.shutdown()
                self._log.close()

    async def caught_up(self) -> None:
        """Wait until what comes after earlier answers is logged, and the shadow knows what is known now."""
        await asyncio.gather(*self._asides)
        if self.shadow is not None:
            await self.shadow.in_turn(self.shadow.catch_up)

    @property
    def detail(self) -> str | None:
        """What is not as it should be; None if nothing is."""
        of_arms = [one.detail for one in self._served.beside]
        of_shadow = self.shadow and self.shadow.refused
        return next(filter(None, (self._away, self._refused, of_shadow, *of_arms)), None)

    async def answer(
        self, route: Route, request_id: str, request: RecommendRequest, question: Question
    ) -> tuple[Engine, Answered, Asked]:
        """Answer a request by its arm, and write the answer to the disk.

        Returns:
            What answered, the answer, and who was to answer, for `offer`.

        Raises:
            RequestError: It names an arm that there is not.
            MgoeError: The control cannot answer, either.
        """
        asked = self._asked(route, request_id, request, question)
        control, reason, teams = self._served.engine, None, None
        engine = control
        try:
            if asked.mixed and route == "recommend" and not request.max_per:
                answered, reason, teams = await self._interleaved(asked)
            else:
                engine, answered, reason = await self._by_arm(asked, control)
        except BaseException as error:
            found = error.message if isinstance(error, MgoeError) else str(error) or type(error).__name__
            record = self._record(asked, control, None, "error", found)
            if isinstance(error, Exception):
                await self._write(record)
            else:  # out of time: nothing may wait
                self._writers.submit(self._append, record)
            raise
        status = "fallback" if reason else "ok"
        await self._write(self._record(asked, engine, answered, status, reason, teams))
        if asked.running is not None:
            named = {} if asked.arm is None else {"arm": asked.running.arms[asked.arm].name}
            answered = answered._replace(body=answered.body | {"experiment": asked.running.id} | named)
        return engine, answered, asked

    def _asked(self, route: Route, request_id: str, request: RecommendRequest, question: Question) -> Asked:
        """Find the experiment of a request, and its arm."""
        came = self._served.engine.now()
        now = datetime.fromtimestamp(came / 1e6, UTC)
        unit = None if request.user is None else str(request.user)
        if self.settings[0].unit == "request":  # as in all others
            unit = request.unit
        one, arm, mixed = self._experiment_of(request, unit), None, False
        if one is not None and (one.stop or now < (one.start or now) or (one.end and one.end <= now)):
            one = None
        if one is not None and request.arm is not None:
            arm = [arm.name for arm in one.arms].index(request.arm)
        elif one is not None and unit is not None and (arm := arm_of(one, unit)) is not None:
            mixed = place(f"{one.seed}:interleave", unit) < one.interleave
        return Asked(
            came, time.perf_counter_ns(), request_id, route, request, question,
            one, unit, None if mixed else arm, mixed,
        )  # fmt: skip

    def _experiment_of(self, request: RecommendRequest, unit: str | None) -> ExperimentSettings | None:
        """Return the experiment of a unit, or the first with the arm that the request names."""
        own = [one for one in self.settings if is_in(one, unit)]
        if request.arm is None:
            return own[0] if own else None
        names = {arm.name: one for one in (*self.settings[::-1], *own) for arm in one.arms}
        if request.arm not in names:
            raise RequestError(
                "arm",
                f"must be one of the experiment {' or '.join(one.id for one in self.settings)}, found "
                f"{request.arm[:80]!r}" + did_you_mean(request.arm, [*names]),
            )
        return names[request.arm]

    async def _by_arm(self, asked: Asked, control: Engine) -> tuple[Engine, Answered, str | None]:
        """Let the arm of a request answer, or the control. Return why the arm did not."""
        if asked.running is None or asked.arm is None:
            return control, await in_turns(asked.question(control)), None
        engine = self._arms[asked.running.id][asked.arm].engine
        try:
            return engine, await self._ask(asked, asked.running, asked.arm), None
        except Exception as error:
            if engine is control:
                raise
            answered = await in_turns(asked.question(control))
            return control, answered, self._fails("arm", error, bundle=engine.name)

    async def _ask(self, asked: Asked, one: ExperimentSettings, arm: int) -> Answered:
        """Ask the engine of an arm, which explores as the arm does."""
        engine, how = self._arms[one.id][arm].engine, one.arms[arm].explore
        check_tasks("an arm", engine.bundle, self._served.engine.bundle)
        seed = _number(f"{one.seed}:{one.arms[arm].name}:{asked.id}")
        return await in_turns(asked.question(engine, explore=Exploration(how, seed) if how else None))

    async def _interleaved(self, asked: Asked) -> tuple[Answered, str | None, list[str] | None]:
        """Let two arms make a list together, or the control alone. Return why the other arm did not, and the
        arm of each item."""
        assert asked.running is not None
        control, other = (one.engine for one in self._arms[asked.running.id])
        answered = await in_turns(asked.question(control))
        try:
            theirs = await in_turns(asked.question(other))
            check_tasks("an arm", other.bundle, control.bundle)
        except Exception as error:
            return answered, self._fails("arm", error, bundle=other.name), None
        seed = _number(f"{asked.running.seed}:teams:{asked.id}")
        body, teams = interleaved(answered.body, theirs.body, asked.request.k, seed)
        return answered._replace(body=body), None, [asked.running.arms[team].name for team in teams]

    def offer(
        self, route: Route, request_id: str, engine: Engine, answered: Answered, asked: Asked | None
    ) -> None:
        """Do some time what comes after an answer, if the request is one of the sample. Returns at once."""
        one, shadow = self.settings[0], self.shadow
        of = asked.running if asked is not None and asked.arm is not None else None
        if asked is not None and of is not None and place(f"{of.seed}:compare", request_id) < of.compare:
            self._aside("compare", partial(self._compared, asked, of))
        share = 0.0 if one.shadow is None else one.shadow.share
        if shadow is not None and place(f"{one.seed}:shadow", request_id) < share:
            named = {"time": engine.now(), "request": request_id, "route": route}
            if work := shadow.scoring(engine, answered, **named):
                self._aside("shadow", partial(shadow.in_turn, work))

    def _aside(self, what: Aside, work: Callable[[], Coroutine[Any, Any, Sequence[Answer]]]) -> None:
        if sum(task.get_name() == what for task in self._asides) < WAITING[what]:
            task = asyncio.create_task(self._finished(what, work), name=what)
            self._asides.add(task)
            task.add_done_callback(self._asides.discard)
        else:
            self._counts[what][0].labels("dropped").inc()

    async def _finished(self, what: Aside, work: Callable[[], Coroutine[Any, Any, Sequence[Answer]]]) -> None:
        """Log what nobody gets."""
        count, outcome = self._counts[what]
        try:
            answers = await work()
            outcome = "dropped" if not answers else outcome if await self._write(*answers) else "failed"
        except Exception as error:  # whatever is wrong, the service goes its way
            self._fails(what, error)
            outcome = "failed"
        count.labels(outcome).inc()

    async def _compared(self, asked: Asked, one: ExperimentSettings) -> list[Answer]:
        """Return the list of another arm."""
        assert asked.arm is not None
        step = 1 + int(place(f"{one.seed}:other", asked.id) * (len(one.arms) - 1))
        other = (asked.arm + step) % len(one.arms)
        engine = self._arms[one.id][other].engine
        asked = asked._replace(arm=other, clock=time.perf_counter_ns())
        return [self._record(asked, engine, await self._ask(asked, one, other), "ok", use="compare")]

    def _fails(self, what: str, error: Exception, **named: Any) -> str:
        if str(error) != self._failures.get(what):  # once, not for every request
            log(f"{what} failed", logging.ERROR, error, error=str(error), **named)
        self._failures[what] = str(error)
        return str(error) or type(error).__name__

    def _record(
        self,
        asked: Asked,
        engine: Engine,
        answered: Answered | None,
        status: Literal["ok", "fallback", "error"],
        reason: str | None = None,
        teams: Sequence[str] | None = None,
        use: Literal["answer", "compare"] = "answer",
    ) -> Answer:
        one, request, body = asked.running, asked.request, {} if answered is None else answered.body
        if use == "answer":
            self._count.labels(status).inc()
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

    async def _write(self, *answers: Answer) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self._writers, self._append, *answers)

    def _append(self, *answers: Answer) -> bool:
        """Write answers, and return whether they are written. If not, they are sent all the same."""
        try:
            self._log.append(*answers)
        except Exception as error:
            if not self._away:
                log("answers are not logged", logging.ERROR, error, error=str(error))
            self._away = f"answers are not logged: {error}"
            self._write_failures.labels("answers").inc()
            return False
        self._away = ""
        return True

    async def _watch(self) -> None:
        """Read the files again when one changes; what they held before counts while one breaks a rule."""
        while self._paths:
            await asyncio.sleep(self._every)
            before, self._stamps = self._stamps, [*map(stamp, self._paths)]
            if self._stamps == before:
                continue
            try:
                settings = await asyncio.to_thread(self._read)
                for old, new, path in zip(self.settings, settings, self._paths, strict=True):
                    check_change(old, new, path)
                self.settings, self._refused = settings, ""
                for one, path in zip(settings, self._paths, strict=True):
                    log("experiment read", path=str(path), experiment=one.id, phase=one.phase)
            except MgoeError as error:
                self._refused = f"the experiment was refused: {error}"
                log("experiment refused", logging.ERROR, error, error=str(error))


def check_control(settings: ExperimentSettings, served: Path, place: Path) -> None:
    """Check that the first arm is the bundle that is served.

    Raises:
        ConfigError: It names another one.
    """
    own = settings.arms[0].bundle
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
    first, second = (
        (one.id, [(arm.name, arm.bundle) for arm in one.arms], one.shadow and one.shadow.bundle)
        for one in (before, after)
    )
    if first != second:
        raise ConfigError(
            place, "another id, other arms and other bundles need a restart of the service, found such"
        )


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
