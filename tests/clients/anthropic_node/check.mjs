// @anthropic-ai/sdk: the Messages surface.

import Anthropic from "@anthropic-ai/sdk";

const tools = ["weather", "clock"].map((name) => ({ name, input_schema: { type: "object" } }));

function client(ask, options = {}) {
  const baseURL = ask.url.replace(/\/v1$/, "");
  return new Anthropic({ baseURL, apiKey: "none", maxRetries: 2, ...options });
}

function body(ask) {
  const messages = [{ role: "user", content: ask.text }];
  return { model: ask.model, max_tokens: 100, messages };
}

function seen(message) {
  return {
    text: message.content.map((block) => block.text ?? "").join(""),
    tokens: [message.usage.input_tokens, message.usage.output_tokens],
  };
}

function calls(message) {
  const found = message.content.filter((block) => block.type === "tool_use");
  return { calls: found.map((call) => [call.id, call.name, JSON.stringify(call.input)]) };
}

async function plain(ask) {
  const answer = await client(ask).messages.create(body(ask));
  return { ...seen(answer), report: answer.samplewise, cost: answer.usage.cost };
}

async function stream(ask) {
  const events = client(ask).messages.stream(body(ask));
  let pieces = 0;
  events.on("text", () => pieces++);
  return { ...seen(await events.finalMessage()), pieces };
}

async function called(ask) {
  return calls(await client(ask).messages.create({ ...body(ask), tools }));
}

async function calledStream(ask) {
  return calls(await client(ask).messages.stream({ ...body(ask), tools }).finalMessage());
}

async function refused(ask) {
  try {
    await plain(ask);
  } catch (error) {
    if (!(error instanceof Anthropic.APIError)) throw error;
    return { status: error.status, code: error.error.error.code };
  }
  return { status: 200 };
}

async function patient(ask) {
  return seen(await client(ask, { timeout: ask.timeout_s * 1000 }).messages.create(body(ask)));
}

export { called as tools, calledStream as tools_stream, patient, plain, refused, stream };
