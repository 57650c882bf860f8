"""The HTTP service: what each route does, described so that the OpenAPI document says all that can be answered.

Handlers read the body themselves: pydantic checks 500 ids in 25 microseconds straight from JSON, a tenth of what the usual way through
Python objects and back takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from mgoe import __version__
from mgoe.errors import MgoeError, RequestError, StoreError
from mgoe.serving.events.event import LONGEST_ID
from mgoe.serving.http import schemas as wire
from mgoe.serving.http.middleware import App, Guard, failure
from mgoe.serving.http.reloader import Current
from mgoe.serving.http.settings import Limits
from mgoe.serving.http.telemetry import Figures
from mgoe.serving.scoring import ranking
from mgoe.serving.scoring.objective import ObjectiveError
from mgoe.serving.scoring.ranking import Steps

Model = TypeVar("Model", bound=BaseModel)
MISTAKES = 100
"""In a body; to list more of them would hold up other requests."""
ERRORS = {
    401: "The bearer token is missing or wrong.",
    403: "A page of another site asks, or another name than a service without a token has.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    422: "The request asks for what cannot be.",
    429: "Too many requests at once; ask again in a second.",
    500: "The service failed; its log says why.",
    503: "It took too long, or the store of events is away; ask again.",
}
"""What every route may answer beside 200."""


def create_app(
    current: Current,
    limits: Limits,
    tokens: tuple[bytes, ...] = (),
    access_log: bool = True,
    local: bool = False,
) -> App:
    """The whole application, behind its guard.

    Args:
        current: The engine that serves now, and the store of events. It is started and stopped with the application.
        limits: On what one request may ask.
        tokens: That open it; none: everybody may ask.
        access_log: Write a line a request.
        local: See `Guard`.
    """
    figures = Figures(lambda: current.engine.live.stats)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with current.running(figures):
            yield

    app = FastAPI(
        title="mgoe", version=__version__, description="Ranks items for users by several tasks at once.",
        lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/openapi.json", redirect_slashes=False,
    )  # fmt: skip
    _add_errors(app)
    _add_ranking(app, current, limits, figures)
    _add_events(app, current, limits, figures)
    _add_reading(app, current)
    _add_operations(app, current, figures)
    secure = bool(tokens)
    app.openapi = lambda: _described(app, secure)  # type: ignore[method-assign]
    routes = frozenset(path for route in app.routes if (path := getattr(route, "path", None)))
    return Guard(app, limits, tokens, figures, routes, access_log, local)


def _add_ranking(app: FastAPI, current: Current, limits: Limits, figures: Figures) -> None:
    @app.post(
        "/v1/rank",
        summary="Rank candidates, or the whole catalogue",
        **_route(wire.RankAnswer, wire.RankRequest),
    )
    async def rank(request: Request) -> Response:
        asked = _read(wire.RankRequest, await request.body())
        _limit("candidates", len(asked.candidates or ()), limits.candidates)
        answer = await _in_turns(ranking.rank(current.engine, asked))
        figures.scored.inc(answer["ranked"])
        _count_unseen(figures, int(answer["unseen_user"]), answer["unseen_items"])
        return _json(answer)

    @app.post("/v1/score", summary="Score pairs", **_route(wire.ScoreAnswer, wire.ScoreRequest))
    async def score(request: Request) -> Response:
        asked = _read(wire.ScoreRequest, await request.body())
        _limit("items", len(asked.items), limits.candidates)
        answer = await _in_turns(ranking.score(current.engine, asked))
        figures.scored.inc(len(asked.items))
        _count_unseen(figures, answer["unseen_users"], answer["unseen_items"])
        return _json(answer)


def _add_events(app: FastAPI, current: Current, limits: Limits, figures: Figures) -> None:
    @app.post("/v1/events", summary="Add events, durably", **_route(wire.EventsAnswer, wire.EventsRequest))
    async def events(request: Request) -> Response:
        asked = _read(wire.EventsRequest, await request.body())
        _limit("events", len(asked.events), limits.events)
        errors = await current.add(asked.events)
        refused = sum(error is not None for error in errors)
        figures.events.labels("accepted").inc(len(errors) - refused)
        figures.events.labels("refused").inc(refused)
        outcomes = [
            {"outcome": "accepted" if error is None else "refused", "error": error} for error in errors
        ]
        return _json({"accepted": len(errors) - refused, "refused": refused, "outcomes": outcomes})


def _add_reading(app: FastAPI, current: Current) -> None:
    user, item = (
        _parameter("user", "A user's id.", True, "42"),
        _parameter("item", "An item's id; without it, what is known of the user.", False, "7"),
    )
    context = _parameter("context", "Context features as a JSON object.", False, "{}")

    @app.get(
        "/v1/explain",
        summary="What carried a score",
        **_route(wire.Explanation, parameters=[user, item, context]),
    )
    async def explain(request: Request) -> Response:
        given = _query(request, {"user", "item", "context"})
        if "user" not in given:
            raise RequestError("user", "must be given, found none; name a user's id")
        return _json(
            current.engine.explain(
                given["user"], given.get("item"), _read_context(given.get("context", "{}"))
            )
        )

    @app.get("/v1/about", summary="The bundle that serves", **_route(wire.About, parameters=[]))
    async def about(request: Request) -> Response:
        _query(request, set())
        return _json(current.engine.about)

    limit = {"name": "limit", "in": "query", "required": False, "description": "Macro nodes of each side, the heaviest.",
             "schema": {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}}  # fmt: skip

    @app.get(
        "/v1/macro",
        summary="Macro nodes and the edges between them",
        **_route(wire.Macro, parameters=[limit]),
    )
    async def macro(request: Request) -> Response:
        text = _query(request, {"limit"}).get("limit", "50")
        if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= 500):
            raise RequestError("limit", f"must be a whole number from 1 to 500, found {text[:20]!r}")
        return _json(current.engine.macro(int(text)))


def _add_operations(app: FastAPI, current: Current, figures: Figures) -> None:
    @app.get(
        "/healthz",
        summary="Whether the process lives",
        **_route(wire.Health, parameters=[], errors=(403, 500)),
    )
    async def healthz() -> Response:
        return _json({"status": "ok", "bundle": current.engine.name, "detail": None})

    @app.get(
        "/readyz",
        summary="Whether it should get requests",
        **_route(wire.Health, parameters=[], errors=(403, 500)),
    )
    async def readyz() -> Response:
        return _json(
            {"status": "ready", "bundle": current.engine.name, "detail": current.refused or current.away}
        )

    text = {
        200: {"description": "In the text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    }

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        **_route(None, parameters=[], errors=(401, 403, 500)),
    )
    async def metrics() -> Response:
        return Response(figures.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    app.router.routes[-1].responses |= text  # type: ignore[attr-defined]
    page = resources.files("mgoe.serving.http").joinpath("page.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False, response_class=HTMLResponse)
    async def index() -> Response:
        return HTMLResponse(page, headers={"content-security-policy": PAGE_POLICY})


PAGE_POLICY = "; ".join(
    [f"{kind}-src 'unsafe-inline'" for kind in ("style", "script")]
    + [
        "default-src 'none'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""The page reads its own server and nothing else, and stands in no other page."""


async def _in_turns(steps: Steps[dict[str, Any]]) -> dict[str, Any]:
    """Go through the steps; between two of them others have their turn, and a time limit is seen."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value
        await asyncio.sleep(0)


def _read(model: type[Model], body: bytes) -> Model:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if (count := error.error_count()) > MISTAKES:
            raise RequestError(
                "body", f"has {count:,} mistakes, more than are told apart; send what /openapi.json describes"
            ) from None
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise RequestError(place[:200], f"{first['msg']}{_found(first['input'])}") from None


def _found(value: object) -> str:
    return "" if isinstance(value, dict | list | bytes) else f", found {str(value)[:80]!r}"


def _read_context(text: str) -> dict[str, Any]:
    try:
        held = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RequestError("context", f"must be a JSON object ({error})") from None
    if not isinstance(held, dict):
        raise RequestError("context", f"must be a JSON object, found {text[:80]!r}")
    return _read(wire.ContextOf, b'{"context": %b}' % text.encode()).context


def _query(request: Request, known: set[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known or name in given:
            rule = (
                "is given twice"
                if name in given
                else f"is no parameter; there are {', '.join(sorted(known)) or 'none'}"
            )
            raise RequestError(name[:80] or "query", rule)
        if len(value) > LONGEST_ID:
            raise RequestError(name, f"may have {LONGEST_ID} characters at most, found {len(value)}")
        given[name] = value
    return given


def _limit(place: str, found: int, most: int) -> None:
    if found > most:
        raise RequestError(place, f"may hold {most:,} at most, found {found:,}; ask in parts")


def _count_unseen(figures: Figures, users: int, items: int) -> None:
    if users:
        figures.unseen.labels("user").inc(users)
    if items:
        figures.unseen.labels("item").inc(items)


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
    return Response(_written(value), status, media_type="application/json")


def _written(value: Mapping[str, Any]) -> bytes:
    """As JSON; what JavaScript would round is looked for one by one only where there is such a number."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_STRICT_INTEGER)
    except orjson.JSONEncodeError:
        return orjson.dumps(wire.exact(value), option=orjson.OPT_SERIALIZE_NUMPY)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(MgoeError)
    async def mistake(_: Request, error: MgoeError) -> Response:
        status = 503 if isinstance(error, StoreError) else 422
        position = error.position if isinstance(error, ObjectiveError) else None
        return _json({"error": error.message, "place": error.place, "position": position}, status)

    @app.exception_handler(Exception)
    async def defect(request: Request, _: Exception) -> Response:
        return _json(
            {"error": failure(request.scope), "place": "server", "position": None}, 500
        )  # the guard hears of it too, and logs it

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        rule = {404: "there is no such path", 405: "another method is needed"}.get(
            error.status_code, str(error.detail)
        )
        response = _json(
            {
                "error": f"{rule}; /openapi.json lists what there is",
                "place": request.url.path[:200],
                "position": None,
            },
            error.status_code,
        )
        response.headers.update(error.headers or {})
        return response


def _route(
    answer: type[BaseModel] | None,
    body: type[BaseModel] | None = None,
    parameters: list[Any] | None = None,
    errors: tuple[int, ...] = tuple(ERRORS),
) -> dict[str, Any]:
    """What FastAPI is told of a route, whose handler reads its request itself."""
    extra: dict[str, Any] = {"parameters": parameters} if parameters else {}
    if body is not None:
        extra["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}},
        }
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": wire.Problem, "description": ERRORS[status]} for status in errors
    }
    if answer is not None:
        responses[200] = {"model": answer, "description": "The answer."}
    return {"response_model": None, "responses": responses, "openapi_extra": extra}


def _parameter(name: str, text: str, required: bool, example: str) -> dict[str, Any]:
    schema = {"type": "string", "maxLength": LONGEST_ID}
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": text,
        "schema": schema,
        "example": example,
    }


def _described(app: FastAPI, secure: bool) -> dict[str, Any]:
    """FastAPI's document, with the request bodies and the token that it does not see."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schemas = document["components"]["schemas"]
        for model in (wire.RankRequest, wire.ScoreRequest, wire.EventsRequest):
            described = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= described.pop("$defs", {})
            schemas[model.__name__] = described
        if secure:
            document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
            for path, methods in document["paths"].items():
                if path.startswith("/v1/") or path == "/metrics":
                    for method in methods.values():
                        method["security"] = [{"bearer": []}]
        app.openapi_schema = document
    return app.openapi_schema
