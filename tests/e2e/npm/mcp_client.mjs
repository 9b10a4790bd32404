// An agent on the official MCP SDK for TypeScript, with its own time-outs: it calls one tool, and repeats the identical
// call while it is told to. `progress` asks for progress and lets it reset the time-out, as an agent that can wait does.
//
// usage: node --input-type=module - URL KEY TOOL ARGUMENTS plain|progress    prints what it got as JSON
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, key, tool, given, how] = process.argv.slice(2);
const patience = 10; // identical calls
const seen = { requests: 0, progress: 0 };
const counted = (target, options) => {
  if (String(options?.body ?? "").includes('"tools/call"')) seen.requests += 1;
  return fetch(target, options);
};
const requestInit = { headers: { authorization: `Bearer ${key}` } };
const client = new Client({ name: "npm-client", version: "1" });
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit, fetch: counted }));
const options = how === "progress" ? { resetTimeoutOnProgress: true, onprogress: () => (seen.progress += 1) } : undefined;
for (let turn = 0; turn < patience; turn += 1) {
  try {
    const result = await client.callTool({ name: tool, arguments: JSON.parse(given) }, undefined, options);
    seen.text = result.content.map((part) => part.text ?? "").join("");
    seen.is_error = result.isError === true;
    seen.data = result.structuredContent ?? null;
  } catch (error) {
    seen.error = String(error);
    break;
  }
  if (!seen.is_error || !/waiting for approval|not executed yet/i.test(seen.text)) break;
}
await client.close();
console.log(JSON.stringify(seen));
