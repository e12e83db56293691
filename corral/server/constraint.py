"""What a request says that its text has to be, on every endpoint that generates."""

from __future__ import annotations

from typing import Any

import msgspec

from corral.config import ServerConfig
from corral.engine.messages import Constraint
from corral.errors import OptionError, RequestError
from corral.server.schema import GenerateRequest
from corral.tokenizer.tokenizer import Tokenizer

ANY_OBJECT = {"type": "object"}


def check(config: ServerConfig, tokenizer: Tokenizer) -> None:
    """Raises OptionError if the server's own constraint is of no use: else every request would be told so."""
    if config.constraint is None:
        return
    from corral.sampling.constraint import Grammars  # the compiler, which is the engine's in all other cases

    kind, text = config.constraint
    control = [id for id in range(tokenizer.vocab_size) if tokenizer.is_control(id)]
    grammars = Grammars(tokenizer.token_bytes_table(), control, tokenizer.eog_ids)
    try:
        grammars.compile_now(kind, text)
    except RequestError as error:
        flag = {"gbnf": "--grammar", "json_schema": "--json-schema"}[kind]
        raise OptionError(f"error: {flag}: {error}") from None


def constraint_of(request: GenerateRequest, config: ServerConfig) -> Constraint | None:
    """The constraint of a request, else the server's own. Raises RequestError.

    That a grammar or schema makes sense, the engine finds out.
    """
    schema = _schema(request)
    if request.grammar and schema is not None:
        raise RequestError('Either "grammar" or "json_schema" can be given, not both')
    if request.grammar:
        return Constraint("gbnf", request.grammar)
    if schema is not None:
        return json_constraint(schema)
    return Constraint(*config.constraint) if config.constraint else None


def json_constraint(schema: Any) -> Constraint:
    """A JSON value of this schema; an empty schema means any object."""
    return Constraint("json_schema", msgspec.json.encode(ANY_OBJECT if schema == {} else schema).decode())


def _schema(request: GenerateRequest) -> Any:
    """None: no schema is asked for."""
    chosen = request.json_schema
    if chosen is not None and not isinstance(chosen, (dict, bool)):
        raise _wrong("json_schema", chosen, "an object")
    wanted = request.response_format or {}
    match wanted.get("type"):
        case None | "text":
            return chosen
        case "json_object":
            given = wanted.get("schema")
            return _object(
                "response_format.schema", ({} if chosen is None else chosen) if given is None else given
            )
        case "json_schema":
            wrapper = wanted.get("json_schema")
            if wrapper is not None and not isinstance(wrapper, dict):
                raise _wrong("response_format.json_schema", wrapper, "an object")
            inner = (wrapper or {}).get("schema")
            return _object("response_format.json_schema.schema", {} if inner is None else inner)
        case other:
            raise _wrong("response_format.type", other, '"text", "json_object" or "json_schema"')


def _object(name: str, value: Any) -> Any:
    if not isinstance(value, (dict, bool)):
        raise _wrong(name, value, "an object")
    return value


def _wrong(name: str, value: Any, expected: str) -> RequestError:
    shown = msgspec.json.encode(value).decode()
    return RequestError(f"Field '{name}': expected {expected}, got {shown[:80]}")
