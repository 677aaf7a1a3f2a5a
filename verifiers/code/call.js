// Runs inside the sandbox: calls one function of main.js with the arguments on standard input and
// writes what it returns, as JSON, to descriptor 3. What the program prints goes elsewhere.
"use strict";
const fs = require("fs");
const vm = require("vm");
const stringify = JSON.stringify;
const { entry_point: entry, args } = JSON.parse(fs.readFileSync(0, "utf8"));
globalThis.require = require;
globalThis.module = { exports: {} };
globalThis.exports = globalThis.module.exports;
const source = fs.readFileSync("main.js", "utf8").replace(/^export\s+(default\s+)?/gm, "");
vm.runInThisContext(source, { filename: "main.js" });

function find() {
  const names = entry.split(".");
  try {
    let owner = vm.runInThisContext(names[0]);
    for (const name of names.slice(1)) {
      if (typeof owner === "function") owner = new owner();
      owner = owner[name].bind(owner);
    }
    return owner;
  } catch (error) {
    if (entry in globalThis.module.exports) return globalThis.module.exports[entry];
    throw error;
  }
}

Promise.resolve(find()(...args)).then((value) => {
  const text = stringify(value);
  fs.writeSync(3, text === undefined ? "undefined" : text);
  process.exit(0);
});
