// Makes a component of policy.js: an engine for JavaScript goes into it, which makes it 12 MB large.

import { readFile, stat, writeFile } from "node:fs/promises";

import { componentize } from "@bytecodealliance/componentize-js";

const schema = await readFile("schema.json", "utf8");
const source = await readFile("policy.js", "utf8");
const { component } = await componentize(
  source.replace('import schema from "./schema.json";', `const schema = ${schema};`),
  {
    witPath: "wit",
    worldName: "leadership-policy",
    // Nothing of the outside world is there for a policy.
    disableFeatures: ["random", "stdio", "clocks", "http", "fetch-event"],
  },
);
await writeFile("{{name}}.wasm", component);
console.log(`{{name}}.wasm: ${(await stat("{{name}}.wasm")).size} bytes`);
