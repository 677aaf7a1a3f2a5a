// Node's clients of /v1/responses and /v1/messages: the AI SDK, openai-node, @anthropic-ai/sdk.
// Usage: node check.mjs URL, of a proxy whose upstream is scripted as in test_conversations.py.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { createOpenAI } from "@ai-sdk/openai";
import { Output, generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const url = process.argv[2];
const apiKey = "unused";
const City = z.object({ city: z.string() });
const weather = { description: "The weather in a city", parameters: City };

const checks = {
  async "AI SDK: text, and a second turn that names items of the first"() {
    const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey });
    for (const route of ["one", "vote"]) {
      const first = await generateText({ model: openai(route), prompt: "hello" });
      assert.equal(first.text, "hello to you");
      assert.ok(first.usage.outputTokens > 0);
      const messages = [
        { role: "user", content: "hello" },
        ...first.response.messages,
        { role: "user", content: "and again" },
      ];
      const second = await generateText({ model: openai(route), messages });
      assert.equal(second.text, "again to you");
    }
  },

  async "AI SDK: streams"() {
    const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey });
    for (const route of ["one", "vote"]) {
      const { textStream, finishReason } = streamText({ model: openai(route), prompt: "hello" });
      let text = "";
      for await (const piece of textStream) text += piece;
      assert.equal(text, "hello to you");
      assert.equal(await finishReason, "stop");
    }
  },

  async "AI SDK: tools, called and answered"() {
    const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey });
    const cities = [];
    const tools = {
      weather: tool({
        description: weather.description,
        inputSchema: City,
        execute: async ({ city }) => {
          cities.push(city);
          return "rain";
        },
      }),
    };
    const { text } = await generateText({
      model: openai("one"),
      prompt: "the weather in Oslo and Rome",
      tools,
      stopWhen: stepCountIs(3),
    });
    assert.deepEqual(cities, ["Oslo", "Rome"]);
    assert.equal(text, "it rains");
  },

  async "AI SDK: objects"() {
    const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey });
    const { output } = await generateText({
      model: openai("vote"),
      prompt: "a city as JSON",
      output: Output.object({ schema: City }),
    });
    assert.deepEqual(output, { city: "Oslo" });
  },

  async "openai-node: responses, streams, parse"() {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
    const plain = await client.responses.create({ model: "vote", input: "hello" });
    assert.equal(plain.output_text, "hello to you");
    assert.equal(plain.samplewise.samples.drawn, 4);
    assert.equal(plain.usage.cost, plain.samplewise.cost_usd.total);
    const stream = client.responses.stream({ model: "one", input: "hello" });
    let text = "";
    stream.on("response.output_text.delta", (event) => (text += event.delta));
    const final = await stream.finalResponse();
    assert.equal(text, "hello to you");
    assert.equal(final.output_text, text);
    const next = await client.responses.create({
      model: "one",
      input: "and again",
      previous_response_id: final.id,
    });
    assert.equal(next.output_text, "again to you");
    const parsed = await client.responses.parse({
      model: "vote",
      input: "a city as JSON",
      text: { format: zodTextFormat(City, "city") },
    });
    assert.deepEqual(parsed.output_parsed, { city: "Oslo" });
    await assert.rejects(client.responses.create({ model: "none", input: "hello" }), {
      status: 404,
      code: "model_not_found",
    });
    const tools = [{ type: "web_search" }];
    await assert.rejects(client.responses.create({ model: "one", input: "hello", tools }), {
      status: 400,
      param: "tools.0.type",
    });
  },

  async "@anthropic-ai/sdk: messages, streams, tools, tokens, errors"() {
    const client = new Anthropic({ baseURL: url, apiKey, maxRetries: 0 });
    const messages = [{ role: "user", content: "hello" }];
    const ask = { model: "vote", max_tokens: 99, messages };
    const plain = await client.messages.create(ask);
    assert.equal(plain.content[0].text, "hello to you");
    assert.equal(plain.stop_reason, "end_turn");
    assert.equal(plain.usage.cost, plain.samplewise.cost_usd.total);
    for (const model of ["one", "vote"]) {
      const stream = client.messages.stream({ ...ask, model });
      let text = "";
      stream.on("text", (piece) => (text += piece));
      const final = await stream.finalMessage();
      assert.equal(text, "hello to you");
      assert.equal(final.content[0].text, text);
      assert.ok(final.usage.output_tokens > 0);
    }
    const tools = [{ name: "weather", input_schema: z.toJSONSchema(City) }];
    const turns = [{ role: "user", content: "the weather in Oslo and Rome" }];
    const called = await client.messages.stream({ ...ask, messages: turns, tools }).finalMessage();
    assert.equal(called.stop_reason, "tool_use");
    const uses = called.content.filter((block) => block.type === "tool_use");
    assert.deepEqual(uses.map((use) => use.input.city), ["Oslo", "Rome"]);
    const content = uses.map((use) => ({
      type: "tool_result",
      tool_use_id: use.id,
      content: "rain",
    }));
    const answered = await client.messages.create({
      ...ask,
      tools,
      messages: [
        ...turns,
        { role: "assistant", content: called.content },
        { role: "user", content },
      ],
    });
    assert.equal(answered.content[0].text, "it rains");
    const counted = await client.messages.countTokens({ model: "vote", messages });
    assert.ok(counted.input_tokens > 0);
    assert.equal(counted.samplewise.estimate, true);
    await assert.rejects(client.messages.create({ ...ask, model: "none" }), { status: 404 });
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(`passed: ${name}`);
}
