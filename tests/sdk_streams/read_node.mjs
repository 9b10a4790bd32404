// Reads answers with the real npm SDKs, openai and the Vercel AI SDK. Run by Node in the folder of its modules.
//
// One line of JSON in, one line out, as read_python.py says. The AI SDK runs tools by itself: `executed` holds what
// they were run with.
import { createInterface } from "node:readline";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";

globalThis.AI_SDK_LOG_WARNINGS = false;
process.on("unhandledRejection", () => {}); // a stream that fails also rejects promises that nobody awaits

const messages = [{ role: "user", content: "Go on." }];
const anything = { type: "object", properties: {}, additionalProperties: true };
let item;

/** The provider's answer to every request: the pieces of the current item. */
const answer = async () => {
  const pieces = item.pieces.map((piece) => new Uint8Array(Buffer.from(piece, "base64")));
  const body = new ReadableStream({
    pull(controller) {
      if (pieces.length > 0) controller.enqueue(pieces.shift());
      else controller.close();
    },
  });
  const type = item.kind === "stream" ? "text/event-stream" : "application/json";
  return new Response(body, { headers: { "content-type": type } });
};

const provider = { apiKey: "none", baseURL: "http://provider.test/v1", fetch: answer };
const client = new OpenAI({ ...provider, maxRetries: 0, logLevel: "off" });
const models = {
  "ai-sdk openai": createOpenAI(provider).chat("m"),
  "ai-sdk compatible": createOpenAICompatible({ ...provider, name: "some" })("m"),
};

const reading = () => ({ calls: [], text: "", finish: {}, error: null });
const failed = (error) => String(error).slice(0, 300);
const call = (choice, kind, id, name, text, value) => ({
  choice,
  kind,
  id: id ?? null,
  name: name ?? null,
  text: text ?? null,
  value: value === undefined ? null : JSON.stringify(value),
});

/** Text, or the texts of a list of parts. */
const textOf = (content) =>
  Array.isArray(content) ? content.map((part) => textOf(part.text)).join("") : typeof content === "string" ? content : "";

function noteCompletion(found, completion) {
  for (const { index, message, finish_reason } of completion.choices) {
    found.finish[index] = finish_reason;
    found.text += textOf(message.content);
    for (const { id, function: fn, custom } of message.tool_calls ?? []) {
      if (fn) found.calls.push(call(index, "function", id, fn.name, fn.arguments));
      if (custom) found.calls.push(call(index, "custom", id, custom.name, custom.input));
    }
    const legacy = message.function_call;
    if (legacy) found.calls.push(call(index, "legacy", null, legacy.name, legacy.arguments));
  }
}

/** `client.chat.completions.stream()`: its final completion, and its events of calls that are done. */
async function openaiStream() {
  const found = { "openai-node": reading(), "openai-node events": reading() };
  const [final, events] = Object.values(found);
  try {
    const stream = client.chat.completions.stream({ model: "m", messages });
    stream.on("tool_calls.function.arguments.done", (event) => {
      events.calls.push(call(null, "function", null, event.name, event.arguments));
    });
    stream.on("content.delta", (event) => (events.text += event.delta));
    noteCompletion(final, await stream.finalChatCompletion());
  } catch (error) {
    final.error = events.error = failed(error);
  }
  return found;
}

async function openaiCreate() {
  const found = reading();
  try {
    noteCompletion(found, await client.chat.completions.create({ model: "m", messages }));
  } catch (error) {
    found.error = failed(error);
  }
  return { "openai-node": found };
}

/** `client.chat.completions.runTools()`, which runs the tools of the first choice. */
const openaiRunTools = (stream) => async () => {
  const found = reading();
  const tools = item.tools.map((name) => ({
    type: "function",
    function: {
      name,
      parameters: anything,
      function: (text) => {
        found.calls.push(call(0, "function", null, name, text));
        return "done";
      },
    },
  }));
  try {
    const request = { model: "m", messages, tools, stream };
    const runner = client.chat.completions.runTools(request, { maxChatCompletions: 1 });
    const { message, finish_reason } = (await runner.finalChatCompletion()).choices[0];
    found.finish[0] = finish_reason;
    found.text = textOf(message.content);
  } catch (error) {
    found.error = failed(error);
  }
  return { "openai-node runTools": found };
};

/** What an agent gives the AI SDK. Its tools note what they are run with. */
function aiRequest(name, found) {
  found.executed = [];
  const entries = item.tools.map((toolName) => [
    toolName,
    tool({
      inputSchema: jsonSchema(anything),
      execute: (input) => {
        found.executed.push(call(null, "function", null, toolName, null, input));
        return "done";
      },
    }),
  ]);
  return {
    model: models[name],
    messages,
    tools: Object.fromEntries(entries),
    stopWhen: isStepCount(1),
    maxRetries: 0,
    onError: () => {},
  };
}

function noteAiCall(found, part, text) {
  if (part.invalid) found.error = `invalid call of ${part.toolName}: ${failed(part.error)}`;
  const value = part.invalid ? undefined : part.input;
  const noted = call(null, "function", part.toolCallId, part.toolName, text, value);
  noted.signature = part.providerMetadata?.some?.thoughtSignature ?? null;
  found.calls.push(noted);
}

const aiStream = (name) => async () => {
  const found = reading();
  const texts = new Map();
  try {
    for await (const part of streamText(aiRequest(name, found)).fullStream) {
      if (part.type === "text-delta") found.text += part.text;
      else if (part.type === "tool-input-delta") texts.set(part.id, (texts.get(part.id) ?? "") + part.delta);
      else if (part.type === "tool-call") noteAiCall(found, part, texts.get(part.toolCallId) ?? "");
      else if (part.type === "finish-step") found.finish[0] = part.rawFinishReason ?? null;
      else if (part.type === "error" || part.type === "tool-error") found.error ??= failed(part.error);
    }
  } catch (error) {
    found.error = failed(error);
  }
  return { [name]: found };
};

const aiGenerate = (name) => async () => {
  const found = reading();
  try {
    const result = await generateText(aiRequest(name, found));
    found.text = result.text;
    found.finish[0] = result.rawFinishReason ?? null;
    for (const part of result.toolCalls) noteAiCall(found, part);
  } catch (error) {
    found.error = failed(error);
  }
  return { [name]: found };
};

const ai = (how) => Object.fromEntries(Object.keys(models).map((name) => [name, how(name)]));
const readers = {
  stream: { "openai-node": openaiStream, "openai-node runTools": openaiRunTools(true), ...ai(aiStream) },
  plain: { "openai-node": openaiCreate, "openai-node runTools": openaiRunTools(false), ...ai(aiGenerate) },
};

async function read(one) {
  item = one;
  const readings = {};
  for (const [name, reader] of Object.entries(readers[item.kind])) {
    if (item.readers === null || item.readers.includes(name)) Object.assign(readings, await reader());
  }
  return readings;
}

for await (const line of createInterface({ input: process.stdin })) {
  const readings = [];
  for (const one of JSON.parse(line)) readings.push(await read(one));
  process.stdout.write(`${JSON.stringify(readings)}\n`);
}
