// Vercel's AI SDK: @ai-sdk/openai-compatible on chat completions, @ai-sdk/openai on Responses.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import { z } from "zod";

const schema = z.object({ steps: z.array(z.string()), answer: z.number() });
const anything = jsonSchema({ type: "object" });
const tools = { weather: tool({ inputSchema: anything }), clock: tool({ inputSchema: anything }) };

// What is no field of OpenAI's reaches an application only through this.
const metadataExtractor = {
  extractMetadata: async ({ parsedBody }) => ({
    samplewise: { report: parsedBody.samplewise, cost: parsedBody.usage.cost },
  }),
  createStreamExtractor: () => {
    let found = {};
    return {
      processChunk: (chunk) => {
        if (chunk.samplewise) found = { report: chunk.samplewise, cost: chunk.usage?.cost };
      },
      buildMetadata: () => ({ samplewise: found }),
    };
  },
};

function asked(ask) {
  const provider = createOpenAICompatible({
    name: "samplewise",
    baseURL: ask.url,
    apiKey: "none",
    includeUsage: true,
    supportsStructuredOutputs: true,
    metadataExtractor,
  });
  return { model: provider(ask.model), prompt: ask.text, maxRetries: 2 };
}

function askedOfResponses(ask) {
  const provider = createOpenAI({ baseURL: ask.url, apiKey: "none" });
  return { model: provider(ask.model), prompt: ask.text, maxRetries: 2 };
}

async function whole(found) {
  const usage = await found.usage;
  const metadata = (await found.providerMetadata)?.samplewise;
  return { tokens: [usage.inputTokens, usage.outputTokens], ...metadata };
}

async function generated(options) {
  const found = await generateText(options);
  return { text: found.text, ...(await whole(found)) };
}

async function streamed(options) {
  const found = streamText(options);
  const texts = [];
  for await (const text of found.textStream) texts.push(text);
  return { text: texts.join(""), pieces: texts.length, ...(await whole(found)) };
}

function calls(found) {
  return { calls: found.map((c) => [c.toolCallId, c.toolName, JSON.stringify(c.input)]) };
}

const plain = (ask) => generated(asked(ask));
const stream = (ask) => streamed(asked(ask));
const responses = (ask) => generated(askedOfResponses(ask));
const responsesStream = (ask) => streamed(askedOfResponses(ask));

async function called(ask) {
  return calls((await generateText({ ...asked(ask), tools })).toolCalls);
}

async function calledStream(ask) {
  const found = streamText({ ...asked(ask), tools });
  await found.consumeStream();
  return calls(await found.toolCalls);
}

async function structured(ask) {
  return { parsed: (await generateObject({ ...asked(ask), schema })).object };
}

async function refused(ask) {
  try {
    await plain(ask);
  } catch (error) {
    if (!APICallError.isInstance(error)) throw error;
    return { status: error.statusCode, code: error.data.error.code };
  }
  return { status: 200 };
}

export {
  called as tools,
  calledStream as tools_stream,
  plain,
  refused,
  responses,
  responsesStream as responses_stream,
  stream,
  structured,
};
