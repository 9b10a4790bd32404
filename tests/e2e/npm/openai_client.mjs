// An agent on the official OpenAI SDK for Node, with its own time-outs and retries: one question to a model, asked again
// while the answer's text says that it waits for a person.
//
// usage: node --input-type=module - URL KEY MODEL WORD plain|stream    prints what it got as JSON
import OpenAI from "openai";

const [baseURL, apiKey, model, word, how] = process.argv.slice(2);
const patience = 10; // identical questions
const seen = { requests: 0 };
const counted = (target, options) => {
  seen.requests += 1;
  return fetch(target, options);
};
const client = new OpenAI({ baseURL, apiKey, fetch: counted });
const question = { model, messages: [{ role: "user", content: word }] };

async function plain() {
  const [choice] = (await client.chat.completions.create(question)).choices;
  const calls = (choice.message.tool_calls ?? []).map((call) => [call.function.name, call.function.arguments]);
  return { text: choice.message.content ?? "", calls, finish: choice.finish_reason };
}

async function streamed() {
  const got = { text: "", calls: [], finish: null };
  for await (const event of await client.chat.completions.create({ ...question, stream: true })) {
    for (const choice of event.choices) {
      got.finish = choice.finish_reason ?? got.finish;
      got.text += choice.delta.content ?? "";
      for (const part of choice.delta.tool_calls ?? []) {
        const call = (got.calls[part.index] ??= ["", ""]);
        call[0] += part.function?.name ?? "";
        call[1] += part.function?.arguments ?? "";
      }
    }
  }
  return got;
}

for (let turn = 0; turn < patience; turn += 1) {
  try {
    Object.assign(seen, how === "stream" ? await streamed() : await plain());
  } catch (error) {
    seen.error = String(error);
    seen.status = error.status ?? null;
    seen.code = error.code ?? null;
    break;
  }
  if (!/waiting for approval|not executed yet/i.test(seen.text)) break;
}
console.log(JSON.stringify(seen));
