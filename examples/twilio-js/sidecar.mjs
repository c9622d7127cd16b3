// Asks the sidecar: over its Unix socket (Node), or over HTTP (Node, browsers).

/** The sidecar said no, or nothing at all. Has `status` (0: no answer), `type`, `retryAfter` in seconds. */
export class SidecarError extends Error {
  constructor(message, details) {
    super(message);
    Object.assign(this, { name: "SidecarError", status: 0, type: null, retryAfter: null, ...details });
  }
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const MAX_ANSWER = 1_048_576; // characters

/** Throw if *where* cannot lead to a sidecar. What stands in it is not repeated: it may be a secret. */
export function check(where) {
  const { socketPath, url, accessKey, token } = where ?? {};
  const wrong = (what) => {
    throw new TypeError(`where: ${what}, such as { socketPath: "/run/token-keeper/api.sock", token: "chat" }`);
  };
  if (typeof token !== "string" || !NAME.test(token)) wrong("`token` must be a token's name in the sidecar");
  if (Boolean(socketPath) === Boolean(url)) wrong("it must have either `socketPath` or `url`");
  if (typeof (socketPath || url) !== "string") wrong("`socketPath` and `url` must be strings");
  if (socketPath && !globalThis.process?.versions?.node) wrong("only Node has `socketPath`; a browser needs `url`");
  if (!url) return;
  const { protocol, username, password } = parsed(url) ?? {};
  if (!["http:", "https:"].includes(protocol) || username || password) {
    wrong("`url` must be of http or https, without a user name or a password");
  }
  if (accessKey != null && !/^[!-~]+$/.test(accessKey)) wrong("`accessKey` must be one line without spaces");
}

/** Return where the sidecar is, as it may be shown. */
export const placeOf = ({ socketPath, url }) => socketPath || parsed(url).origin + parsed(url).pathname;

function parsed(url) {
  try {
    return new URL(url, globalThis.location?.href);
  } catch {
    return null;
  }
}

/** Resolve to {status, document}; document is null without one. Throws `SidecarError` for no answer. */
export async function ask(where, method, rest, { body, wait = 0, signal } = {}) {
  const path = `/v1/tokens/${encodeURIComponent(where.token)}${rest}`;
  const ended = new AbortController();
  const end = () => ended.abort();
  const timer = setTimeout(end, (wait + 10) * 1000);
  signal?.addEventListener("abort", end);
  if (signal?.aborted) end();
  const request = { method, path, body: body && JSON.stringify(body), signal: ended.signal };
  try {
    const answer = await (where.socketPath ? overSocket(where, request) : overHttp(where, request));
    return { ...answer, document: answer.text.startsWith("{") ? JSON.parse(answer.text) : null };
  } catch (error) {
    const place = placeOf(where);
    const reason = ended.signal.aborted
      ? `nothing came in ${wait + 10} s`
      : (error.cause?.code ?? error.code ?? error.name);
    throw new SidecarError(
      `the sidecar does not answer at ${place} (${reason}): see that \`token-keeper serve\` runs there`,
    );
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", end);
  }
}

/** Resolve to the token's document, or null if there is nothing newer. Throws `SidecarError`. */
export async function read(where, method, rest, options) {
  const { status, document, retryAfter } = await ask(where, method, rest, options);
  if (status === 304) return null;
  if (status === 200 && isToken(document)) return document;
  const said =
    status !== 200 && typeof document?.title === "string"
      ? `${document.title}: ${document.detail}`
      : `an answer that is not the sidecar's; is ${placeOf(where)} its address?`;
  throw new SidecarError(`no token ${JSON.stringify(where.token)} (${status}): ${said}`, {
    status,
    type: document?.type,
    retryAfter,
  });
}

const isToken = (document) =>
  typeof document?.token === "string" && document.token !== "" && Number.isSafeInteger(document.generation);

async function overSocket({ socketPath }, { method, path, body, signal }) {
  const node = "node:http"; // Not a literal: bundlers for browsers would look for it.
  const { request } = await import(/* webpackIgnore: true */ /* @vite-ignore */ node);
  return new Promise((resolve, reject) => {
    const headers = body
      ? { "Content-Type": "application/json", "Content-Length": new TextEncoder().encode(body).length }
      : {};
    const asked = request({ socketPath, method, path, headers, signal, agent: false }, (answer) => {
      let text = "";
      answer.setEncoding("utf8").on("data", (part) => {
        text += part;
        if (text.length > MAX_ANSWER) answer.destroy(new RangeError("too long"));
      });
      answer.on("error", reject);
      answer.on("end", () =>
        resolve({ status: answer.statusCode, text, retryAfter: seconds(answer.headers["retry-after"]) }),
      );
    });
    asked.on("error", reject);
    asked.end(body);
  });
}

async function overHttp({ url, accessKey }, { method, path, body, signal }) {
  const headers = {
    ...(accessKey && { Authorization: `Bearer ${accessKey}` }),
    ...(body && { "Content-Type": "application/json" }),
  };
  const answer = await fetch(url.replace(/\/+$/, "") + path, { method, headers, body, signal, redirect: "error" });
  return { status: answer.status, text: await answer.text(), retryAfter: seconds(answer.headers.get("retry-after")) };
}

const seconds = (text) => (/^\d+$/.test(text ?? "") ? Number(text) : null);
