"""The API is what its description says, for whatever a generator of requests comes up with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from schemathesis.checks import Status
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from serving import free_port, parts_of, serving

import token_keeper
from token_keeper import RefreshPolicy
from token_keeper.sidecar.api._app import make_app
from token_keeper.sidecar.api._openapi import document
from token_keeper.sidecar.api._reports import REASON_MAX, _problem_of

SETTINGS = {
    "seed": 1,
    "parameters": {"path.name": "chat"},
    "generation": {"mode": "all", "max-examples": 10},
    # What it learns of one operation for another costs half a minute and found nothing.
    "phases": {"stateful": {"enabled": False}},
    # That there is no token now is an answer, not a mistake.
    "checks": {
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", 503]},
        # A body of over 64 KiB is refused before anybody reads what is in it.
        "negative_data_rejection": {"expected-statuses": [400, 401, 404, 405, 413, 415, 422, 503]},
    },
}


# Some 700 requests: 12 s of our processor, nearly all of it in the generator.
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
def test_every_operation_answers_as_described(tmp_path: Path):
    policy = RefreshPolicy(splay=False, min_interval_s=0.1, denial_bucket=1000)
    port = free_port()
    with serving(tmp_path, parts_of(policy=policy), port=port, page="http://127.0.0.1:8750/") as sidecar:
        # So that streams end after their first events.
        sidecar.call(sidecar.household.events.close)
        config = SchemathesisConfig.from_dict(SETTINGS)
        schema = schemathesis.openapi.from_dict(sidecar.get("/openapi.json").json(), config=config)
        schema.config.update(base_url=f"http://127.0.0.1:{port}")
        ended = list(from_schema(schema).execute())
    assert [
        str(event) for event in ended if isinstance(event, events.FatalError | events.NonFatalError)
    ] == []
    assert list(failures(ended)) == []
    tried = {event.recorder.label for event in ended if isinstance(event, events.ScenarioFinished)}
    assert tried >= {f"{method} {path}" for method, path in operations()}


def failures(ended: list[Any]) -> Iterator[str]:
    """Yield what did not pass, with the command that shows it."""
    for event in ended:
        if isinstance(event, events.ScenarioFinished):
            for checks in event.recorder.checks.values():
                for check in checks:
                    if check.status is not Status.SUCCESS and check.failure_info is not None:
                        yield f"{check.name}: {check.failure_info.failure}\n{check.failure_info.code_sample}"


@pytest.mark.parametrize("character", ["x", "\u00d4", "\U000f0bdd"])
def test_a_reason_is_as_long_as_it_has_characters(character):
    longest = {"generation": 1, "reason": character * REASON_MAX}
    assert _problem_of(longest) is None
    assert _problem_of(longest | {"reason": f"{longest['reason']}."}) is not None


def operations() -> Iterator[tuple[str, str]]:
    """Yield the methods and paths of the description."""
    for path, item in document()["paths"].items():
        yield from ((method.upper(), path) for method in item if method in {"get", "post"})


def test_the_description_describes_every_route_and_nothing_else(tmp_path: Path):
    with serving(tmp_path, parts_of()) as sidecar:
        app = make_app(sidecar.household, keys=None, reload=None)  # type: ignore[arg-type]
    routes = {(method, route.path) for route in app.routes for method in route.methods - {"HEAD"}}
    public = {(method, path) for method, path in routes if path == "/" or path.startswith("/static/")}
    assert routes - public == set(operations())


def test_every_schema_is_one_and_refers_to_what_is_there():
    described = document()
    schemas = described["components"]["schemas"]
    for schema in schemas.values():
        jsonschema_rs.meta.validate(schema)
    assert {ref.rpartition("/")[2] for ref in references(described)} <= set(schemas)


def references(part: Any) -> Iterator[str]:
    """Yield every `$ref` in *part*."""
    if isinstance(part, dict):
        yield from (value for name, value in part.items() if name == "$ref")
        yield from (ref for value in part.values() for ref in references(value))
    elif isinstance(part, list):
        yield from (ref for value in part for ref in references(value))


def test_the_page_about_the_api_names_every_path_and_every_problem():
    package = Path(token_keeper.__file__).parent / "sidecar" / "api"
    page = (package.parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    assert [path for _, path in operations() if f" {path}`".replace("{name}", "NAME") not in page] == []
    sources = "".join(source.read_text(encoding="utf-8") for source in package.glob("*.py"))
    names = set(re.findall(r'(?:HTTPStatus\.\w+,|name=|request,|name: str =)\s+"([a-z-]+)"(?!:)', sources))
    names |= set(re.findall(r'name="([a-z-]+)"', sources))
    assert names >= {"too-short", "bad-request", "gave-up", "shutting-down", "not-ready"}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []
