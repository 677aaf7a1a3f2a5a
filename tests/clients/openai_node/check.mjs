// openai-node: chat, with the helpers that put streams together, and Responses.

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const Sum = z.object({ steps: z.array(z.string()), answer: z.number() });
const tools = ["weather", "clock"].map((name) => ({
  type: "function",
  function: { name, parameters: { type: "object" } },
}));

function client(ask, options = {}) {
  return new OpenAI({ baseURL: ask.url, apiKey: "none", maxRetries: 2, ...options });
}

function body(ask) {
  return { model: ask.model, messages: [{ role: "user", content: ask.text }] };
}

function calls(message) {
  return { calls: message.tool_calls.map((c) => [c.id, c.function.name, c.function.arguments]) };
}

async function plain(ask) {
  const answer = await client(ask).chat.completions.create(body(ask));
  return {
    text: answer.choices[0].message.content,
    tokens: [answer.usage.prompt_tokens, answer.usage.completion_tokens],
    cost: answer.usage.cost,
    report: answer.samplewise,
  };
}

async function stream(ask) {
  const events = await client(ask).chat.completions.create({
    ...body(ask),
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of events) chunks.push(chunk);
  const last = chunks.pop();
  const texts = chunks.map((chunk) => chunk.choices[0].delta.content).filter(Boolean);
  return {
    text: texts.join(""),
    pieces: texts.length,
    tokens: [last.usage.prompt_tokens, last.usage.completion_tokens],
    cost: last.usage.cost,
    report: last.samplewise,
  };
}

async function called(ask) {
  const answer = await client(ask).chat.completions.create({ ...body(ask), tools });
  return calls(answer.choices[0].message);
}

async function calledStream(ask) {
  const events = client(ask).chat.completions.stream({ ...body(ask), tools });
  return calls((await events.finalChatCompletion()).choices[0].message);
}

async function structured(ask) {
  const answer = await client(ask).chat.completions.parse({
    ...body(ask),
    response_format: zodResponseFormat(Sum, "sum"),
  });
  return { parsed: answer.choices[0].message.parsed };
}

async function several(ask) {
  const answer = await client(ask).chat.completions.create({ ...body(ask), n: 2 });
  return { texts: answer.choices.map((choice) => choice.message.content) };
}

async function refused(ask) {
  try {
    await plain(ask);
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    return { status: error.status, code: error.code };
  }
  return { status: 200 };
}

async function patient(ask) {
  const patience = { timeout: ask.timeout_s * 1000 };
  const answer = await client(ask, patience).chat.completions.create(body(ask));
  return { text: answer.choices[0].message.content };
}

function response(found) {
  return {
    text: found.output_text,
    tokens: [found.usage.input_tokens, found.usage.output_tokens],
    report: found.samplewise,
  };
}

async function responses(ask) {
  return response(await client(ask).responses.create({ model: ask.model, input: ask.text }));
}

async function responsesStream(ask) {
  const events = client(ask).responses.stream({ model: ask.model, input: ask.text });
  let pieces = 0;
  events.on("response.output_text.delta", () => pieces++);
  return { ...response(await events.finalResponse()), pieces };
}

export {
  called as tools,
  calledStream as tools_stream,
  patient,
  plain,
  refused,
  responses,
  responsesStream as responses_stream,
  several,
  stream,
  structured,
};
