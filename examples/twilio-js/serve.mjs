// What stands between a browser and the sidecar: a page has no socket, and must not have the access key.
//
//   TOKEN_KEEPER_SOCKET=/run/token-keeper/api.sock PORT=8080 node serve.mjs voice video
//
// Serves the files beside it, and passes on what keeper.mjs asks for the tokens named on the command line.
// In your own server, look first who asks: whoever gets a token is its user.
import { createReadStream } from "node:fs";
import http from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";

const socketPath = process.env.TOKEN_KEEPER_SOCKET ?? "/run/token-keeper/api.sock";
const names = new Set(process.argv.slice(2));
const here = path.dirname(fileURLToPath(import.meta.url));
const TYPES = { ".html": "text/html; charset=utf-8", ".mjs": "text/javascript", ".js": "text/javascript" };
const TOKEN = /^\/token-keeper(\/v1\/tokens\/([\w.-]+)(?:\/(?:denied|accepted|refresh))?)(\?[^#]*)?$/;
const FILE = /^\/(?:[\w.-]+\.(?:html|mjs)|node_modules\/[\w./@-]+\.js)$/;

const server = http.createServer((request, answer) => {
  const [, route, name, query = ""] = TOKEN.exec(request.url) ?? [];
  if (route && names.has(name) && isOwnPage(request)) return pass(request, answer, route + query);
  if (request.method === "GET" && FILE.test(request.url) && !request.url.includes(".."))
    return send(answer, request.url);
  return answer.writeHead(404).end();
});

/** A page of another site may send requests here too. */
function isOwnPage({ headers }) {
  return !headers["sec-fetch-site"] || headers["sec-fetch-site"] === "same-origin";
}

function pass(request, answer, to) {
  const type = request.headers["content-type"];
  const asked = http.request({
    socketPath,
    method: request.method,
    path: to,
    headers: type ? { "Content-Type": type } : {},
  });
  asked.on("response", (given) => {
    answer.writeHead(given.statusCode, given.headers);
    given.pipe(answer);
  });
  asked.on("error", () => (answer.headersSent ? answer.destroy() : answer.writeHead(502).end()));
  answer.on("close", () => asked.destroy());
  request.pipe(asked);
}

function send(answer, name) {
  const file = createReadStream(path.join(here, name));
  file.on("open", () => answer.writeHead(200, { "Content-Type": TYPES[path.extname(name)] }));
  file.on("error", () => answer.writeHead(404).end());
  file.pipe(answer);
}

server.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", () =>
  console.log(`http://127.0.0.1:${server.address().port}/voice.html`),
);
