"""The schema and the reader agree."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from clusterd.core.model.profile import EngineSet, Profile
from clusterd.profile import InvalidProfile, as_builtins, json_schema, parse
from clusterd.profile.settings import all_settings
from clusterd.profile.trust import SHIPPED

SCHEMA = jsonschema.Draft202012Validator(json_schema())


def test_it_is_a_schema_and_json():
    jsonschema.Draft202012Validator.check_schema(json.loads(json.dumps(json_schema())))


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.name)
def test_the_shipped_profiles_are_valid(path):
    SCHEMA.validate(yaml.safe_load(path.read_text()))


def test_a_profile_with_every_setting_is_valid():
    SCHEMA.validate(as_builtins(Profile(version=1, engine_sets={"engines": EngineSet(n=4)})))


# As YAML; whether it is a profile is for both to say.
CASES = [
    "{version: 1, engine_sets: {engines: {n: 4}}}",
    "{version: 1, engine_sets: {engines: {n: 4, max: 8, start_timeout: 5}}}",
    "{version: 1, controller: null, engine_sets: {engines: {n: 4, setup: null, env: null, startup: null}}}",
    "{version: 1, controller: {max_message: 64 MiB, ports: 50000-50100}, engine_sets: {engines: {n: 4}}}",
    "{version: 1, engine_sets: {engines: {n: 4, drain_timeout: null}}}",
    "{version: 2, engine_sets: {engines: {n: 4}}}",
    "{version: 1}",
    "{version: 1, engine_sets: {}}",
    "{version: 1, engine_sets: null}",
    "{version: 1, engine_sets: {engines: {}}}",
    "{version: 1, engine_sets: {engines: null}}",
    "{version: 1, engine_sets: {engines: {n: -1}}}",
    "{version: 1, engine_sets: {engines: {n: null}}}",
    "{version: 1, engine_sets: {engines: {n: four}}}",
    "{version: 1, engine_sets: {engines: {n: 4, nn: 4}}}",
    "{version: 1, engine_sets: {engines: {n: 4, env: {A: 1}}}}",
    "{version: 1, engine_sets: {engines: {n: 4, env: {1A: x}}}}",
    "{version: 1, engine_sets: {engines: {n: 4, preload: numpy}}}",
    "{version: 1, engine_sets: {engines: {n: 4, preload: [a b]}}}",
    "{version: 1, engine_sets: {engines: {n: 4, launcher: slurm}}}",
    "{version: 1, engine_sets: {engines: {n: 4, start_timeout: 0}}}",
    "{version: 1, engine_sets: {engines: {n: 4, restart: {crash_loop: {failures: 0}}}}}",
    "{version: 1, engine_sets: {a/b: {n: 4}}}",
    "{version: 1, controller: {database: sqlite}, engine_sets: {engines: {n: 4}}}",
    '{version: 1, publish: ipython, controller: {stock: "on", task_scheme: pure, ping: 1}, engine_sets: {engines: {n: 4}}}',
    "{version: 1, publish: null, controller: {stock: null}, engine_sets: {engines: {n: 4}}}",
    "{version: 1, publish: jupyter, engine_sets: {engines: {n: 4}}}",
    "{version: 1, controller: {stock: yes please}, engine_sets: {engines: {n: 4}}}",
    "{version: 1, controller: {ping: 0}, engine_sets: {engines: {n: 4}}}",
    "{version: 1, controller: {max_message: 64 MB}, engine_sets: {engines: {n: 4}}}",
    "[]",
]


@pytest.mark.parametrize("text", CASES)
def test_schema_and_reader_agree(text):
    try:
        parse(text.encode(), "p")
        is_profile = True
    except InvalidProfile:
        is_profile = False
    assert SCHEMA.is_valid(yaml.safe_load(text)) == is_profile


def test_every_setting_has_an_explanation_that_the_schema_shows():
    found = dict(all_settings())
    assert len(found) > 50
    definitions = json_schema()["$defs"]
    for path, setting in found.items():
        assert setting.shape.description.endswith((".", "...")), path
        assert setting.applies in ("live", "set", "controller", "daemon"), path
    for name, section in definitions.items():
        assert section["description"], name
        assert section["additionalProperties"] is False
        for key, value in section["properties"].items():
            assert value["description"], (name, key)
            assert key in section["required"] or "default" in value, (name, key)


def test_a_required_setting_has_an_example_for_the_message_that_it_is_missing():
    required = {path: setting.shape.extra["example"] for path, setting in all_settings() if setting.is_required}
    assert required == {"version": 1, "engine_sets": {"engines": {"n": 4}}, "engine_sets.NAME.n": 4}
