// Runs one client's program: `node runner.mjs FOLDER`. As runner.py, for the programs of Node.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const program = await import(pathToFileURL(`${process.argv[2]}/check.mjs`));

for await (const line of createInterface({ input: process.stdin })) {
  const ask = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(await program[ask.case](ask))}\n`);
}
