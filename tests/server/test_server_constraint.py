"""What a request says that its text has to be."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from toy_model import write_toy_model

from corral.config import ServerConfig
from corral.engine.messages import Constraint
from corral.errors import OptionError, RequestError
from corral.gguf.reader import GGUFFile
from corral.server.constraint import check, constraint_of
from corral.server.schema import GenerateRequest
from corral.tokenizer.tokenizer import Tokenizer, load_tokenizer

SCHEMA = {"type": "array", "items": {"type": "integer"}}
ANY = {"type": "object"}
GRAMMAR = 'root ::= "a"'


def read(fields: dict[str, Any], **config: Any) -> tuple[str, Any] | None:
    found = constraint_of(msgspec.convert(fields, GenerateRequest), ServerConfig(**config))
    if found is None:
        return None
    return (found.kind, json.loads(found.text) if found.kind == "json_schema" else found.text)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"grammar": "", "json_schema": None, "response_format": None}, None),
        ({"response_format": {}}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"grammar": GRAMMAR}, ("gbnf", GRAMMAR)),
        ({"json_schema": SCHEMA}, ("json_schema", SCHEMA)),
        ({"json_schema": {}}, ("json_schema", ANY)),
        ({"json_schema": True}, ("json_schema", True)),
        ({"response_format": {"type": "json_object"}}, ("json_schema", ANY)),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, ("json_schema", SCHEMA)),
        ({"response_format": {"type": "json_object"}, "json_schema": SCHEMA}, ("json_schema", SCHEMA)),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
            ("json_schema", SCHEMA),
        ),
        ({"response_format": {"type": "json_schema"}}, ("json_schema", ANY)),
        ({"response_format": {"type": "text"}, "json_schema": SCHEMA}, ("json_schema", SCHEMA)),
    ],
)
def test_what_is_asked_for(fields: dict[str, Any], expected: tuple[str, Any] | None) -> None:
    assert read(fields) == expected


def test_the_order_of_members_is_kept() -> None:
    schema = {"properties": {"z": {}, "a": {}, "m": {}}}
    found = constraint_of(GenerateRequest(json_schema=schema), ServerConfig())
    assert found == Constraint("json_schema", '{"properties":{"z":{},"a":{},"m":{}}}')


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"grammar": GRAMMAR, "json_schema": SCHEMA},
            'Either "grammar" or "json_schema" can be given, not both',
        ),
        ({"grammar": GRAMMAR, "response_format": {"type": "json_object"}}, "not both"),
        ({"json_schema": [1]}, "Field 'json_schema': expected an object, got [1]"),
        ({"response_format": {"type": "xml"}}, "Field 'response_format.type': expected \"text\", "),
        ({"response_format": {"type": 3}}, "Field 'response_format.type'"),
        (
            {"response_format": {"type": "json_object", "schema": 3}},
            "Field 'response_format.schema': expected an object, got 3",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": 3}},
            "Field 'response_format.json_schema'",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": "x"}}},
            "Field 'response_format.json_schema.schema': expected an object",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": True}},
            "Field 'response_format.json_schema': expected an object, got true",
        ),
    ],
)
def test_what_makes_no_sense(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(fields)
    assert message in str(caught.value)


def test_the_servers_own_counts_where_a_request_asks_for_none() -> None:
    own = {"constraint": ("gbnf", GRAMMAR)}
    assert read({}, **own) == ("gbnf", GRAMMAR)
    assert read({"response_format": {"type": "text"}}, **own) == ("gbnf", GRAMMAR)
    assert read({"json_schema": SCHEMA}, **own) == ("json_schema", SCHEMA)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(GGUFFile.open(write_toy_model(tmp_path_factory.mktemp("toy") / "toy.gguf")))


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (("gbnf", "root ::= ("), r"^error: --grammar: the grammar is not valid: line 1, column 11: "),
        (("json_schema", '{"type": "foo"}'), "^error: --json-schema: the JSON schema is not valid: .*foo"),
    ],
)
def test_a_wrong_one_of_the_server_is_told_at_start(
    tokenizer: Tokenizer, constraint: Any, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        check(ServerConfig(constraint=constraint), tokenizer)


@pytest.mark.parametrize("constraint", [None, ("gbnf", GRAMMAR), ("json_schema", json.dumps(SCHEMA))])
def test_a_sound_one_of_the_server_is_not(tokenizer: Tokenizer, constraint: Any) -> None:
    check(ServerConfig(constraint=constraint), tokenizer)
