// Call an API with a token of the sidecar, and follow its renewals: Node.js without packages.
//
//   TOKEN_KEEPER_SOCKET=/run/token-keeper/api.sock API_URL=https://api.example/things node client.mjs chat
//
// For a session that lives long, such as a chat: `follow` tells when there is a newer token.
import http from "node:http";

const socketPath = process.env.TOKEN_KEEPER_SOCKET ?? "/run/token-keeper/api.sock";
const BY = "client.mjs";

/** Ask the sidecar. Resolves to {status, document}. */
function ask(method, path, body) {
  return new Promise((resolve, reject) => {
    const headers = body ? { "Content-Type": "application/json" } : {};
    const request = http.request({ socketPath, path, method, headers, timeout: 70_000 }, (answer) => {
      let text = "";
      answer.setEncoding("utf8");
      answer.on("data", (part) => (text += part));
      answer.on("error", reject);
      answer.on("end", () => resolve({ status: answer.statusCode, document: text ? JSON.parse(text) : null }));
    });
    request.on("timeout", () => request.destroy(new Error("the sidecar does not answer")));
    request.on("error", reject);
    request.end(body ? JSON.stringify(body) : undefined);
  });
}

/** Resolve to the token of *name*; wait for it up to 30 s. */
async function current(name) {
  const { status, document } = await ask("GET", `/v1/tokens/${name}?by=${BY}&wait=30`);
  if (status !== 200) throw new Error(`${status}: ${document?.title}: ${document?.detail}`);
  return document;
}

/** Report that a server refused *held*. Resolves to the next token. */
async function another(name, held, code) {
  const report = { generation: held.generation, start: held.start, by: BY, code };
  const { status, document } = await ask("POST", `/v1/tokens/${name}/denied?wait=10`, report);
  if (status !== 200) throw new Error(`${status}: ${document?.title}: ${document?.detail}`);
  return document;
}

/** Yield each newer token of *name*, for ever. A restart of the sidecar is waited for. */
async function* follow(name, held) {
  for (;;) {
    try {
      const query = `by=${BY}&after_generation=${held.generation}&wait=60`;
      const { status, document } = await ask("GET", `/v1/tokens/${name}?${query}`);
      const isNew = status === 200 && (document.generation !== held.generation || document.start !== held.start);
      if (isNew) yield (held = document);
      if (status === 200 || status === 304) continue;
    } catch (error) {
      console.error(`the sidecar is away: ${error.message}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
}

const name = process.argv[2];
const url = process.env.API_URL;
const call = (held) => fetch(url, { headers: { Authorization: `Bearer ${held.token}` } });

let held = await current(name);
let answer = await call(held);
if (answer.status === 401) {
  held = await another(name, held, 401);
  answer = await call(held);
}
console.log(`the API answered ${answer.status} to generation ${held.generation}`);
for await (const next of follow(name, held)) {
  // Here a session is given the next token: client.updateToken(next.token).
  console.log(`generation ${next.generation}`);
}
