// The policy `{{name}}`: nodes in a preferred rack lead; in the same rack whoever leads already.
//
// Every call runs in a fresh instance: nothing is remembered. What a function throws is a failure of
// the policy; throw { tag: "configuration", val: "…" } to tell the operator what to mend.

import { log } from "conclave:policy/logging@0.1.0";

import schema from "./schema.json";

export const about = {
  introduce() {
    return {
      name: "{{name}}",
      version: "0.1.0",
      summary: "Nodes in a preferred rack lead.",
      configSchema: JSON.stringify(schema),
    };
  },

  validate(config) {
    const problems = [];
    for (const key of Object.keys(JSON.parse(config))) {
      if (key !== "racks") {
        problems.push({ path: `/${key}`, message: `unknown field \`${key}\`, expected \`racks\`` });
      }
    }
    racksOf(config).forEach((rack, i) => {
      if (typeof rack !== "string" || rack === "") {
        problems.push({ path: `/racks/${i}`, message: "the name of a rack is missing" });
      }
    });
    return problems;
  },
};

export const leadership = {
  rank(view, config) {
    const racks = racksOf(config);
    const keyed = view.candidates.map((candidate) => {
      const rack = candidate.labels.find(([key]) => key === "rack")?.[1];
      const found = racks.indexOf(rack);
      const place = found < 0 ? racks.length : found;
      const reason = found < 0 ? "in none of the racks" : `in rack number ${found + 1}`;
      const incumbent = view.incumbent?.name === candidate.name;
      return { node: candidate.name, reason, place, incumbent };
    });
    // The order of what is equal stays: the longest-standing come first in the view.
    keyed.sort((a, b) => a.place - b.place || b.incumbent - a.incumbent);
    return { order: keyed.map(({ node, reason }) => ({ node, reason })), excluded: [] };
  },
};

function racksOf(config) {
  const racks = JSON.parse(config).racks ?? [];
  if (!Array.isArray(racks)) {
    log("warn", "racks is no list");
    throw { tag: "configuration", val: "/racks: a list of names is expected" };
  }
  return racks;
}
