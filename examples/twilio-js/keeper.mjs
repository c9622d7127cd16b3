// Keeps the token of a client of Twilio's SDKs fresh, with the tokens of a token_keeper sidecar.
//
//   const where = { socketPath: "/run/token-keeper/api.sock", token: "chat" };
//   const client = new Client(await fetchToken(where));
//   const handle = keepFresh(client, where);
//
// In a browser `where` is { url, accessKey, token }. No packages needed. See docs/twilio-js.md.
import { adapt } from "./clients.mjs";
import { begin, step, wake } from "./session.mjs";
import { ask, check, placeOf, read } from "./sidecar.mjs";

const WAIT = 60; // seconds: the longest that the sidecar lets one wait
const RETRY = [1_000, 15_000]; // ms: while the sidecar is away
const BREATH = 1_000; // ms: between answers without news, if they come at once
const LONGEST_TIMER = 2 ** 31 - 1; // ms: more overflows, and fires at once
const EVENTS = ["updated", "denied", "recovered", "gaveUp", "client", "problem"];
const fetched = new Map(); // the last token that fetchToken() gave, by place and name
const nameOf = (where) => `${placeOf(where)} ${where.token}`;

/**
 * Resolve to the token, the raw string; wait up to 30 s for one.
 *
 * With *insteadOf*, a token that a server refused with *code*: report it, and wait for another one.
 */
export async function fetchToken(where, { insteadOf, code = null } = {}) {
  check(where);
  const by = where.by ?? "";
  const body = { token: insteadOf, by, code };
  const document = insteadOf
    ? await read(where, "POST", "/denied?wait=30", { body, wait: 30 })
    : await read(where, "GET", `?wait=30&by=${encodeURIComponent(by)}`, { wait: 30 });
  fetched.set(nameOf(where), document);
  return document.token;
}

/**
 * Keep *client*, made with a token of `fetchToken(where)`, supplied with newer ones until `stop()`.
 *
 * `where` may have `recreate`, a function that makes a new client of a token, `by`, the name under
 * which this session reports, and `limits` (see session.mjs).
 */
export function keepFresh(client, where) {
  check(where);
  const stopped = new AbortController();
  const listeners = new Map(EVENTS.map((name) => [name, new Set()]));
  const place = { ...where, by: where.by || `js-${Math.random().toString(16).slice(2, 10)}` };
  const now = clock();
  const inputs = [];
  let adapter, state, timer;
  let detach = () => {};

  function attach(next) {
    const fitting = adapt(next);
    detach();
    [client, adapter] = [next, fitting];
    detach = adapter.listen(post);
  }

  const able = () => ({ reconnect: adapter.reconnects, recreate: Boolean(where.recreate), quiet: adapter.quiet });

  function post(input) {
    if (stopped.signal.aborted) return;
    inputs.push(input);
    if (inputs.length > 1) return; // Whoever posts the first of them obeys all.
    for (; inputs.length && !stopped.signal.aborted; inputs.shift()) {
      const [next, effects] = step(state, { ...inputs[0], live: adapter.state() }, now());
      state = next;
      for (const effect of effects) ACTS[effect.do](effect);
    }
    clearTimeout(timer);
    const due = stopped.signal.aborted ? Infinity : wake(state);
    if (due < Infinity) timer = setTimeout(post, Math.min(Math.max(due - now(), 0), LONGEST_TIMER), { kind: "tick" });
  }

  function attempt({ serial }, act) {
    const answer = (ok) => post({ kind: "answered", serial, ok });
    new Promise((resolve) => resolve(act())).then(
      () => answer(true),
      () => answer(false),
    );
  }

  const ACTS = {
    update: (effect) => attempt(effect, () => adapter.update(effect.token.text)),
    reconnect: (effect) => attempt(effect, () => adapter.reconnect()),
    recreate: (effect) =>
      attempt(effect, async () => {
        detach();
        const made = await where.recreate(effect.token.text);
        const isWanted = !stopped.signal.aborted && state.serial === effect.serial;
        const needless = isWanted ? adapter : adapt(made);
        if (isWanted) attach(made);
        Promise.resolve()
          .then(() => needless.close())
          .catch(() => {}); // eslint-disable-line no-empty-function
        if (!isWanted) return;
        post({ kind: "recreated", connection: adapter.state(), can: able() });
        tell("client", made);
      }),
    refresh: () => persist(() => ask(place, "POST", "/refresh", { signal: stopped.signal })),
    async report({ what, token, code }) {
      const name =
        token.generation == null ? { token: token.text } : { generation: token.generation, start: token.start };
      const body = { ...name, by: place.by, ...(what === "denied" && { code: code ?? null }) };
      const answer = await persist(() => ask(place, "POST", `/${what}`, { body, signal: stopped.signal }));
      const { verdict, retry_after: wait } = answer?.document ?? {};
      const retryAfter = Number.isFinite(wait) ? Math.max(wait, 0) : null;
      if (verdict) post({ kind: "verdict", verdict, retryAfter, token });
    },
    tell: ({ name, details }) => tell(name, details),
  };

  function tell(name, details) {
    for (const listener of listeners.get(name)) {
      const failed = (error) => console.error(`a listener to "${name}" failed:`, error);
      new Promise((resolve) => resolve(listener(details))).catch(failed);
    }
  }

  /** Call until it gets an answer; undefined if we were stopped. */
  async function persist(call) {
    for (let delay = RETRY[0]; !stopped.signal.aborted; delay = Math.min(2 * delay, RETRY[1])) {
      try {
        const answer = await call();
        if (answer.status < 500) return answer;
      } catch {
        // The long poll tells of it.
      }
      await pause(delay);
    }
    return undefined;
  }

  async function follow() {
    let [after, delay] = ["", RETRY[0]];
    while (!stopped.signal.aborted) {
      const asked = now();
      try {
        const rest = `?by=${encodeURIComponent(place.by)}&wait=${WAIT}${after}`;
        const document = await read(place, "GET", rest, { wait: WAIT, signal: stopped.signal });
        delay = RETRY[0];
        const next = document && `&after_generation=${document.generation}`;
        if ((next ?? after) === after && now() - asked < BREATH) await pause(2 * BREATH);
        if (document) {
          after = next;
          post({ kind: "token", token: tokenOf(document, now()) });
        }
      } catch (error) {
        if (stopped.signal.aborted) return;
        after = ""; // It may be another one when it is back, with generations of its own.
        if (delay === RETRY[0])
          tell("problem", { message: `${error.message}. The session keeps its token; asking goes on` });
        await pause(delay);
        delay = now() - asked > RETRY[1] ? RETRY[0] + 1 : Math.min(2 * delay, RETRY[1]);
      }
    }
  }

  function pause(delay) {
    return new Promise((resolve) => {
      if (stopped.signal.aborted) return resolve();
      const end = () => {
        clearTimeout(sleeping);
        stopped.signal.removeEventListener("abort", end);
        resolve();
      };
      const sleeping = setTimeout(end, delay * (0.5 + Math.random() / 2));
      stopped.signal.addEventListener("abort", end);
    });
  }

  attach(client);
  const last = fetched.get(nameOf(where));
  const text = adapter.token();
  let held = last ? tokenOf(last, now()) : null;
  if (text && text !== last?.token) held = tokenOf({ token: text }, now());
  state = begin({ held, connection: adapter.state(), can: able(), limits: where.limits });
  queueMicrotask(() => stopped.signal.aborted || (post({ kind: "start" }), follow()));

  return {
    /** Call *listener* whenever *name* happens. Returns the handle. */
    on(name, listener) {
      if (!listeners.has(name)) throw new TypeError(`there is no event "${name}"; there are ${EVENTS.join(", ")}`);
      listeners.get(name).add(listener);
      return this;
    },
    /** Leave the client alone from now on. It stays as it is. */
    stop() {
      stopped.abort();
      clearTimeout(timer);
      detach();
    },
    /** The client: another one after it was recreated. */
    get client() {
      return client;
    },
  };
}

/** Returns a clock in ms that never goes back, and sees a suspend where either of the two does. */
function clock() {
  let [time, monotonic, wall] = [0, performance.now(), Date.now()];
  return () => {
    const [was, wasWall] = [monotonic, wall];
    [monotonic, wall] = [performance.now(), Date.now()];
    time += Math.max(monotonic - was, wall - wasWall, 0);
    return time;
  };
}

/** Times are by the sidecar's clock, so that a wrong one here does no harm. */
function tokenOf({ token: text, generation = null, start = null, expires_at: at, expires_in: left }, now) {
  const claims = claimsOf(text);
  const isTimed = at != null && left != null;
  const early = isTimed && claims?.nbf ? claims.nbf - (at - left) - 5 : 0;
  return {
    text,
    generation,
    start,
    claims,
    validUntil: isTimed ? now + left * 1000 : null,
    validFrom: early > 0 ? now + early * 1000 : null,
  };
}

function claimsOf(text) {
  try {
    const bytes = atob(text.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (letter) => letter.charCodeAt(0))));
  } catch {
    return null;
  }
}
