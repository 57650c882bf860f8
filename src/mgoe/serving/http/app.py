"""The HTTP application: what each route does and, for the OpenAPI document, everything that it may answer.

Handlers read the body themselves: pydantic checks 500 ids in 25 microseconds straight from JSON, a tenth of
what it takes through Python objects.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ValidationError
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from mgoe import __version__
from mgoe.bundle.objective import ObjectiveError
from mgoe.errors import MgoeError, RequestError, StoreError
from mgoe.serving.http import schemas
from mgoe.serving.http.experiment import Asked, Experiment, Question, Route, in_turns
from mgoe.serving.http.middleware import OPEN, Middleware, failure, problem
from mgoe.serving.http.page import read_page
from mgoe.serving.http.reloader import Reloader
from mgoe.serving.http.settings import Limits
from mgoe.serving.http.stability import Stability
from mgoe.serving.http.telemetry import Telemetry
from mgoe.serving.http.tokens import ADMIN, ALL, NEEDED, RANK, Tokens
from mgoe.serving.scoring import ranking
from mgoe.serving.scoring.engine import Engine
from mgoe.serving.scoring.explanation import explain
from mgoe.serving.scoring.ranking import Answered

Model = TypeVar("Model", bound=BaseModel)
MISTAKES = 100
"""Mistakes of a body that are looked at; to list more of them would hold up other requests."""
ERRORS = {
    401: "The bearer token is missing or wrong.",
    403: "The token lacks the scope of this path, a page of another site asks, or it asks under another name "
    "than a service without a token has.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    422: "The request asks for what cannot be.",
    429: "Too many requests at once; ask again in a second.",
    500: "The service failed; its log says why.",
    503: "It took too long, or the store of events is away; ask again.",
}
"""What every route may answer beside 200."""


def create_app(
    reloader: Reloader,
    limits: Limits,
    tokens: Tokens,
    access_log: bool = True,
    local: bool = False,
    experiment: Experiment | None = None,
) -> Middleware:
    """Return the whole application, behind its middleware.

    Args:
        reloader: Holds the engine that serves now, and the events. It starts and stops with the application.
        limits: How much one request may ask.
        tokens: They open the service.
        access_log: Log one line per request.
        local: See `Middleware`.
        experiment: Answers rankings by its arms, and lets its shadow score what was answered. It starts and
            stops likewise.
    """
    telemetry = Telemetry(
        lambda: reloader.engine.consumer.stats,
        lambda: reloader.engine.bundle.calibration,
        lambda: reloader.figures,
    )
    tokens.failed = telemetry.token_failures.inc
    stability = Stability()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with (
            reloader.running(telemetry),
            stability.running(telemetry),
            nullcontext() if experiment is None else experiment.running(telemetry),
        ):
            yield

    app = FastAPI(
        title="mgoe", version=__version__, description="Ranks items for users by several tasks at once.",
        lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/openapi.json", redirect_slashes=False,
    )  # fmt: skip
    _add_errors(app)
    _add_ranking(app, reloader, limits, telemetry, stability, experiment)
    _add_events(app, reloader, limits, telemetry)
    _add_reading(app, reloader, limits)
    _add_operations(app, reloader, telemetry, experiment)
    app.openapi = lambda: _document(app, secure=bool(tokens.granted))  # type: ignore[method-assign]
    routes = frozenset(path for route in app.routes if (path := getattr(route, "path", None)))
    telemetry.expect(routes)
    return Middleware(app, limits, tokens, telemetry, routes, access_log, local)


def _add_ranking(
    app: FastAPI,
    reloader: Reloader,
    limits: Limits,
    telemetry: Telemetry,
    stability: Stability,
    experiment: Experiment | None,
) -> None:
    async def answer(
        route: Route, request: Request, question: Question, asked: schemas.RecommendRequest | None = None
    ) -> Response:
        request_id, by = request.state.request_id, None
        if asked is not None and experiment is not None and experiment.answers:
            engine, answered, by = await experiment.answer(route, request_id, asked, question)
        elif asked is not None and asked.arm is not None:
            rule = f"is for a service with an experiment, found {asked.arm[:80]!r}; leave it out"
            raise RequestError("arm", rule)
        else:
            engine = reloader.engine
            answered = await in_turns(question(engine))
        telemetry.scored.inc(len(answered.pairs.items))
        for side in answered.asked:
            telemetry.asked.labels(side).inc(answered.asked[side])
            telemetry.unseen.labels(side).inc(answered.unseen[side])
        response = _json(answered.body)
        # when everything is sent
        response.background = BackgroundTask(note, route, request_id, engine, answered, by)
        return response

    async def note(
        route: Route, request_id: str, engine: Engine, answered: Answered, by: Asked | None
    ) -> None:
        if experiment is not None:
            experiment.offer(route, request_id, engine, answered, by)
        await stability.note(engine, answered.pairs)

    def check_session(asked: schemas.RecommendRequest) -> None:
        _check_size("events", asked.events or (), limits.events, "send the newest")

    @app.post(
        "/v1/rank", summary="Rank candidates, or what the catalogue has, also for the visitor of a session",
        **_describe(schemas.RankAnswer, **_body(schemas.RankRequest)),
    )  # fmt: skip
    async def rank(request: Request) -> Response:
        asked = _read(schemas.RankRequest, request.state.body)
        _check_size("candidates", asked.candidates or (), limits.candidates)
        check_session(asked)
        visitor = {"user": asked.user, "events": asked.events}
        question = partial(ranking.rank, **visitor, candidates=asked.candidates, request=asked)
        return await answer("rank", request, question, asked)

    @app.post(
        "/v1/recommend", summary="Recommend items to a user, or to the visitor of a session",
        **_describe(schemas.RecommendAnswer, **_body(schemas.RecommendRequest)),
    )  # fmt: skip
    async def recommend(request: Request) -> Response:
        asked = _read(schemas.RecommendRequest, request.state.body)
        check_session(asked)
        question = partial(ranking.recommend, user=asked.user, events=asked.events, request=asked)
        return await answer("recommend", request, question, asked)

    @app.post(
        "/v1/score", summary="Score pairs", **_describe(schemas.ScoreAnswer, **_body(schemas.ScoreRequest))
    )
    async def score(request: Request) -> Response:
        asked = _read(schemas.ScoreRequest, request.state.body)
        _check_size("items", asked.items, limits.candidates)
        question = partial(ranking.score, users=asked.users, items=asked.items, context=asked.context)
        return await answer("score", request, question)


def _add_events(app: FastAPI, reloader: Reloader, limits: Limits, telemetry: Telemetry) -> None:
    @app.post(
        "/v1/events", summary="Add events, exposures and labels, durably",
        **_describe(schemas.EventsAnswer, **_body(schemas.EventsRequest)),
    )  # fmt: skip
    async def events(request: Request) -> Response:
        asked = _read(schemas.EventsRequest, request.state.body)
        given = [*asked.events, *asked.exposures, *asked.labels]
        _check_size("events", given, limits.events)
        if not given:
            raise RequestError("events", "must hold an event, an exposure or a label, found none")
        errors = await reloader.add(asked.events, asked.exposures, asked.labels)
        answer = schemas.outcomes(errors)
        for outcome in schemas.OUTCOMES:
            telemetry.events.labels(outcome).inc(answer[outcome])
        return _json(answer)

    @app.post(
        "/v1/items", summary="Register items or withdraw them, durably",
        **_describe(schemas.EventsAnswer, **_body(schemas.ItemsRequest)),
    )  # fmt: skip
    async def items(request: Request) -> Response:
        asked = _read(schemas.ItemsRequest, request.state.body)
        _check_size("items", asked.items, limits.events)
        return _json(schemas.outcomes(await reloader.add_items(asked.items)))


def _add_reading(app: FastAPI, reloader: Reloader, limits: Limits) -> None:
    @app.get(
        "/v1/explain", summary="What carried a score",
        **_describe(schemas.Explanation, **_parameters(schemas.ExplainRequest)),
    )  # fmt: skip
    async def explain_score(request: Request) -> Response:
        asked = _read_query(schemas.ExplainRequest, request)
        return _json(explain(reloader.engine, asked.user, asked.item, asked.context))

    @app.get("/v1/about", summary="The bundle that serves", **_describe(schemas.About))
    async def about(request: Request) -> Response:
        _read_query(schemas.Request, request)
        known = reloader.engine.about
        return _json(known if ADMIN in request.state.scopes else known | {"busiest_users": []})

    @app.get(
        "/v1/macro", summary="Macro nodes and the edges between them",
        **_describe(schemas.Macro, **_parameters(schemas.MacroRequest)),
    )  # fmt: skip
    async def macro(request: Request) -> Response:
        return _json(reloader.engine.macro(_read_query(schemas.MacroRequest, request).limit))

    @app.get("/v1/macro/nodes", summary="All macro nodes, described", **_describe(schemas.MacroNodes))
    async def macro_nodes(request: Request) -> Response:
        _read_query(schemas.Request, request)
        engine = reloader.engine
        found = engine.macro_nodes
        return _json({"users": found["user"], "items": found["item"], "bundle": engine.name})

    @app.post(
        "/v1/names", summary="Names of users and items",
        **_describe(schemas.Names, **_body(schemas.NamesRequest)),
    )  # fmt: skip
    async def names(request: Request) -> Response:
        asked, engine = _read(schemas.NamesRequest, request.state.body), reloader.engine
        _check_size("items", [*asked.users, *asked.items], limits.candidates)
        return _json({
            "users": engine.names("user", asked.users),
            "items": engine.names("item", asked.items),
            "bundle": engine.name,
        })  # fmt: skip


def _add_operations(
    app: FastAPI,
    reloader: Reloader,
    telemetry: Telemetry,
    experiment: Experiment | None,
) -> None:
    """Add the routes for whoever runs the service, and the page."""
    health = _describe(schemas.Health, errors=(403, 500))

    def status(request: Request, word: str, detail: str | None) -> Response:
        more = {"bundle": reloader.engine.name, "detail": detail} if ADMIN in request.state.scopes else {}
        return _json({"status": word} | more)

    @app.get("/healthz", summary="Whether the process lives", **health)
    async def healthz(request: Request) -> Response:
        return status(request, "ok", None)

    @app.get("/readyz", summary="Whether it should get requests", **health)
    async def readyz(request: Request) -> Response:
        return status(request, "ready", reloader.detail or (experiment.detail if experiment else None))

    text = {"description": "In the text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}

    @app.get(
        "/metrics", summary="Figures for Prometheus", response_class=Response,
        **_describe(text, errors=(401, 403, 500)),
    )  # fmt: skip
    async def metrics() -> Response:
        return Response(telemetry.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    page = read_page()

    @app.get("/", include_in_schema=False, response_class=HTMLResponse)
    async def index() -> Response:
        return HTMLResponse(page.html, headers={"content-security-policy": page.policy})


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(MgoeError)
    async def mistake(_: Request, error: MgoeError) -> Response:
        position = error.position if isinstance(error, ObjectiveError) else None
        return problem(503 if isinstance(error, StoreError) else 422, error.message, error.place, position)

    @app.exception_handler(Exception)
    async def defect(request: Request, _: Exception) -> Response:
        return problem(500, failure(request), "server")  # the middleware sees the error too, and logs it

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        rule = {404: "there is no such path", 405: "another method is needed"}.get(
            error.status_code, str(error.detail)
        )
        return problem(
            error.status_code,
            f"{rule}; /openapi.json lists what there is",
            request.url.path[:200],
            headers=error.headers,
        )


def _read(model: type[Model], body: bytes) -> Model:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if (count := error.error_count()) > MISTAKES:
            raise RequestError(
                "body", f"has {count:,} mistakes, more than are listed; send what /openapi.json describes"
            ) from None
        first = error.errors(include_url=False, include_context=False)[0]
        place, value = ".".join(str(part) for part in first["loc"]) or "body", first["input"]
        found = "" if isinstance(value, dict | list | bytes) else f", found {str(value)[:80]!r}"
        raise RequestError(place[:200], first["msg"] + found) from None


def _read_query(model: type[Model], request: Request) -> Model:
    """Check the parameters of the query as a body with these fields is checked."""
    given = {name: request.query_params.getlist(name) for name in request.query_params}
    # one that is given twice is a list, which no field takes
    return _read(model, orjson.dumps({name: one if one[1:] else one[0] for name, one in given.items()}))


def _check_size(place: str, values: Collection[Any], most: int, fix: str = "ask in parts") -> None:
    if len(values) > most:
        raise RequestError(place, f"may hold {most:,} at most, found {len(values):,}; {fix}")


def _json(value: Mapping[str, Any]) -> Response:
    """Return an answer. Numbers that JavaScript would round are looked for only if there is one."""
    try:
        body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_STRICT_INTEGER)
    except orjson.JSONEncodeError:
        body = orjson.dumps(schemas.exact(value), option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json")


def _describe(
    answer: type[BaseModel] | dict[str, Any], errors: tuple[int, ...] = tuple(ERRORS), **extra: Any
) -> dict[str, Any]:
    """Describe a route to FastAPI, whose handler reads its request itself."""
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": schemas.Problem, "description": ERRORS[status]} for status in errors
    }
    responses[200] = answer if isinstance(answer, dict) else {"model": answer, "description": "The answer."}
    return {"response_model": None, "responses": responses, "openapi_extra": extra}


def _body(model: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _parameters(model: type[BaseModel]) -> dict[str, Any]:
    """Describe the parameters of a query, which are the fields of a model."""
    schema = model.model_json_schema()
    required = schema.get("required", ())
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in required, "schema": one}
            for name, one in schema["properties"].items()
        ]
    }


def _document(app: FastAPI, secure: bool) -> dict[str, Any]:
    """Return FastAPI's document, with the request bodies and the token, which it does not see."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        known = document["components"]["schemas"]
        for model in (
            schemas.RankRequest, schemas.RecommendRequest, schemas.ScoreRequest, schemas.EventsRequest,
            schemas.ItemsRequest, schemas.NamesRequest,
        ):  # fmt: skip
            described = model.model_json_schema(ref_template="#/components/schemas/{model}")
            known |= described.pop("$defs", {})
            known[model.__name__] = described
        if secure:
            described = f"A token has scopes, and each path needs one: {', '.join(sorted(ALL))}."
            bearer = {"type": "http", "scheme": "bearer", "description": described}
            document["components"]["securitySchemes"] = {"bearer": bearer}
            for path in document["paths"].keys() - OPEN:
                for method in document["paths"][path].values():
                    method["security"] = [{"bearer": [NEEDED.get(path, RANK)]}]
        app.openapi_schema = document
    return app.openapi_schema
