"""The templates that ipyparallel itself ships are templates of ours: what sites have was made from these."""

from __future__ import annotations

import inspect

import pytest
from ipyparallel.cluster import launcher

from clusterd.launchers.template import Template

SHIPPED = {
    name: found.default_template.default_value
    for name, found in inspect.getmembers(launcher, inspect.isclass)
    if isinstance(getattr(found, "default_template", None), launcher.Unicode) and found.default_template.default_value
}
"""Text by the class that has it."""

NAMES = {"cluster_id", "n", "profile_dir", "program", "program_args", "program_and_args", "environment_json"}
"""What they ask for; a launcher of ours has to give these names to be able to run a site's own."""


def test_there_are_some():
    assert len(SHIPPED) >= 10


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_template_is_rendered_as_ipyparallel_renders_it(name):
    template = Template(SHIPPED[name], name)
    assert template.names <= NAMES
    values = {"n": 16, **{word: f"<{word}>" for word in NAMES - {"n"}}}
    assert template.render(values) == launcher.EvalFormatter().format(SHIPPED[name], **values)
