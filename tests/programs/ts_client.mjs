// The official TypeScript SDK's client: it signs in with OAuth or sends a key, lists the tools and calls one.
//
//   node ts_client.mjs URL TOOL [KEY]
//
// Without KEY it prints one line, {"authorize": "<address>"}, and reads the final redirect from stdin.
// At the end it prints {"tools": […], "result": …}.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const require = createRequire(new URL("../npm/package.json", import.meta.url));
const load = (path) => import(pathToFileURL(require.resolve(`@modelcontextprotocol/sdk/${path}`)).href);
const { Client } = await load("client/index.js");
const { StreamableHTTPClientTransport } = await load("client/streamableHttp.js");
const { UnauthorizedError } = await load("client/auth.js");

const [url, tool, key] = process.argv.slice(2);
const redirect = "http://127.0.0.1:3031/callback";
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

class Memory {
  get redirectUrl() { return redirect; }
  get clientMetadata() { return { client_name: "TypeScript client", redirect_uris: [redirect] }; }
  clientInformation() { return this.client; }
  saveClientInformation(client) { this.client = client; }
  tokens() { return this.kept; }
  saveTokens(tokens) { this.kept = tokens; }
  saveCodeVerifier(verifier) { this.verifier = verifier; }
  codeVerifier() { return this.verifier; }
  state() { return "the-state"; }
  redirectToAuthorization(address) { say({ authorize: address.href }); }
}

const memory = new Memory();
const transport = () => new StreamableHTTPClientTransport(
  new URL(url),
  key ? { requestInit: { headers: { Authorization: `Bearer ${key}` } } } : { authProvider: memory },
);
const client = () => new Client({ name: "ts-client", version: "1.0" });

let connected = client();
let used = transport();
try {
  await connected.connect(used);
} catch (error) {
  if (!(error instanceof UnauthorizedError)) throw error;
  const line = await new Promise((resolve) => createInterface({ input: process.stdin }).once("line", resolve));
  await used.finishAuth(new URL(line).searchParams.get("code"));
  connected = client();
  used = transport();
  await connected.connect(used);
}
const { tools } = await connected.listTools();
const result = await connected.callTool({ name: tool, arguments: {} });
say({ tools: tools.map(({ name }) => name), result });
await connected.close();
process.exit(0);
