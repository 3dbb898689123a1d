"""The policy `{{name}}`: nodes in a preferred rack lead; in the same rack whoever leads already.

Every call runs in a fresh instance: nothing is remembered. What a function raises is a failure of the
policy; raise `Err(Refusal_Configuration("…"))` to tell the operator what to mend.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.about import Info, Problem
from wit_world.exports.leadership import Ranked, Ranking
from wit_world.imports.types import Refusal_Configuration

SCHEMA = """\
{{schema}}"""


class About(exports.About):
    def introduce(self):
        return Info("{{name}}", "0.1.0", "Nodes in a preferred rack lead.", SCHEMA)

    def validate(self, config):
        settings = json.loads(config)
        unknown = [
            Problem(f"/{key}", f"unknown field `{key}`, expected `racks`")
            for key in settings
            if key != "racks"
        ]
        racks = settings.get("racks", [])
        if not isinstance(racks, list):
            return [*unknown, Problem("/racks", "a list of names is expected")]
        missing = [
            Problem(f"/racks/{i}", "the name of a rack is missing")
            for i, rack in enumerate(racks)
            if not isinstance(rack, str) or not rack
        ]
        return unknown + missing


class Leadership(exports.Leadership):
    def rank(self, view, config):
        racks = json.loads(config).get("racks", [])
        if not isinstance(racks, list):
            raise Err(Refusal_Configuration("/racks: a list of names is expected"))

        def judge(candidate):
            rack = dict(candidate.labels).get("rack")
            if rack in racks:
                return racks.index(rack), f"in rack number {racks.index(rack) + 1}"
            return len(racks), "in none of the racks"

        def key(candidate):
            incumbent = view.incumbent is not None and view.incumbent.name == candidate.name
            return judge(candidate)[0], not incumbent

        # The order of what is equal stays: the longest-standing come first in the view.
        order = sorted(view.candidates, key=key)
        return Ranking([Ranked(c.name, judge(c)[1]) for c in order], [])
