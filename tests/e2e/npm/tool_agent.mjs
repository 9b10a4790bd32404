// Two agents that run tools by themselves, one on the Vercel AI SDK and one on the official OpenAI SDK for Node: one
// question to a model, and every tool that it asks for is run.
//
// usage: node --input-type=module - URL KEY MODEL WORD TOOL...    prints what each ran, and what it read, as JSON
import { createOpenAI } from "@ai-sdk/openai";
import { isStepCount, jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";

globalThis.AI_SDK_LOG_WARNINGS = false;
const [baseURL, apiKey, model, word, ...names] = process.argv.slice(2);
const messages = [{ role: "user", content: word }];
const parameters = { type: "object", properties: {}, additionalProperties: true };

async function aiSdk() {
  const seen = { ran: [], text: "", finish: null, error: null };
  const named = (name) => {
    const execute = (input) => {
      seen.ran.push([name, input]);
      return "done";
    };
    return [name, tool({ inputSchema: jsonSchema(parameters), execute })];
  };
  const answer = streamText({
    model: createOpenAI({ baseURL, apiKey }).chat(model),
    messages,
    tools: Object.fromEntries(names.map(named)),
    stopWhen: isStepCount(1),
    maxRetries: 0,
    onError: () => {},
  });
  for await (const part of answer.fullStream) {
    if (part.type === "text-delta") seen.text += part.text;
    else if (part.type === "finish-step") seen.finish = part.rawFinishReason ?? null;
    else if (part.type === "error") seen.error = String(part.error);
  }
  return seen;
}

async function openaiNode() {
  const seen = { ran: [], text: "", finish: null, error: null };
  const named = (name) => ({
    type: "function",
    function: {
      name,
      parameters,
      function: (text) => {
        seen.ran.push([name, JSON.parse(text)]);
        return "done";
      },
    },
  });
  const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
  const request = { model, messages, tools: names.map(named), stream: true };
  try {
    const runner = client.chat.completions.runTools(request, { maxChatCompletions: 1 });
    const [choice] = (await runner.finalChatCompletion()).choices;
    seen.text = choice.message.content ?? "";
    seen.finish = choice.finish_reason;
  } catch (error) {
    seen.error = String(error);
  }
  return seen;
}

console.log(JSON.stringify({ "ai-sdk": await aiSdk(), "openai-node": await openaiNode() }));
