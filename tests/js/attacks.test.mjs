// examples/twilio-js against hostile sidecars and unlucky users. Run by tests/test_attacks_sessions.py, or `node --test`.

import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";

import { fetchToken, keepFresh } from "../../examples/twilio-js/keeper.mjs";

const CANARY = "canary-access-key-Zq3vN8xW1kLp7TfR";
const encoded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const mint = (serial) =>
  `${encoded({ alg: "HS256" })}.${encoded({ jti: serial, sub: "AC1", grants: { identity: "alice" } })}.sig`;

process.on("unhandledRejection", (error) => {
  console.error("unhandled", error);
  process.exitCode = 1;
});

/** What looks like a client of twilsock. */
class Client extends EventEmitter {
  state = "connected";
  given = [];

  constructor(token) {
    super();
    this.config = { token };
  }

  async updateToken(token) {
    this.given.push(token);
    this.config.token = token;
  }

  async connect() {
    this.move("connected");
  }

  async disconnect() {
    this.isClosed = true;
    this.move("disconnected");
  }

  move(state) {
    this.state = state;
    this.emit("stateChanged", state);
  }
}

/** Serve what *answer* returns: a status, or [status, document or text]. `asked` has the requests. */
async function sidecar(context, answer) {
  const asked = [];
  const server = createServer(async (request, response) => {
    asked.push(`${request.method} ${request.url}`);
    const [status, said] = [await answer(request, asked.length)].flat();
    if (response.destroyed) return;
    response.writeHead(status, { "Content-Type": "application/json" });
    response.end(typeof said === "string" ? said : said && JSON.stringify(said));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  context.after(() => (server.closeAllConnections(), server.close()));
  return { asked, where: { url: `http://127.0.0.1:${server.address().port}`, accessKey: CANARY, token: "chat" } };
}

const document = (generation) => ({ token: mint(generation), generation, start: "s", expires_at: null });
const passed = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function holds(what) {
  for (const end = Date.now() + 5_000; !what(); await passed(5)) assert.ok(Date.now() < end, `${what}`);
}

const PLACE = { socketPath: "/run/no/such.sock" };
const MISTAKES = [
  undefined,
  {},
  { ...PLACE },
  { token: "chat" },
  { ...PLACE, token: mint(1) },
  { ...PLACE, token: `Bearer ${CANARY}` },
  { ...PLACE, token: 7 },
  { ...PLACE, url: "http://127.0.0.1:1", token: "chat" },
  { url: `http://me:${CANARY}@127.0.0.1:1`, token: "chat" },
  { url: "127.0.0.1:1", token: "chat" },
  { url: 7, token: "chat" },
  { url: "http://127.0.0.1:1", accessKey: `${CANARY}\n`, token: "chat" },
];

for (const [number, where] of MISTAKES.entries()) {
  test(`mistake ${number} in \`where\` is told at once, without its values`, async () => {
    const isGood = ({ name, stack }) =>
      name === "TypeError" && stack.includes("where: ") && !stack.includes(CANARY) && !stack.includes(mint(1));
    await assert.rejects(fetchToken(where), isGood);
    assert.throws(() => keepFresh(new Client(mint(0)), where), isGood);
  });
}

test("a sidecar that is not there is told with its place", async () => {
  await assert.rejects(fetchToken({ ...PLACE, token: "chat" }), /does not answer at \/run\/no\/such\.sock \(ENOENT\)/);
});

const NO_TOKENS = [
  {},
  { token: "" },
  { token: 7, generation: 1 },
  { token: mint(1) },
  { token: mint(1), generation: "1&wait=0" },
  { token: mint(1), generation: 1e400 },
  "{",
  "[]",
  "<html>",
  "",
  "null",
];

for (const [number, said] of NO_TOKENS.entries()) {
  test(`answer ${number} that is no token is none`, async (context) => {
    const { where } = await sidecar(context, () => [200, said]);
    await assert.rejects(
      fetchToken(where),
      ({ name, stack }) => name === "SidecarError" && !stack.includes(mint(1)) && !stack.includes(CANARY),
    );
  });
}

test("an answer without an end is not kept", async (context) => {
  const { where } = await sidecar(context, () => [200, `{${" ".repeat(8_000_000)}}`]);
  await assert.rejects(fetchToken(where), /SidecarError|does not answer/);
});

for (const [what, answer] of Object.entries({
  "the same token": () => [200, document(1)],
  "that there is nothing new": (_, number) => (number === 1 ? [200, document(1)] : 304),
  "no token": () => [200, {}],
  "that it is broken": () => [500, {}],
})) {
  test(`a sidecar that says at once ${what} is not asked in a hurry`, async (context) => {
    const { asked, where } = await sidecar(context, answer);
    const handle = keepFresh(new Client(mint(1)), where);
    await holds(() => asked.length > 0);
    await passed(1_200);
    handle.stop();
    assert.ok(asked.length <= 5, `${asked.length} questions in 1.2 s`);
  });
}

for (const wait of ["soon", -1, 1e400, null, {}]) {
  test(`a verdict with a retry_after of ${JSON.stringify(wait)} stops nothing`, async (context) => {
    let generation = 1;
    const { asked, where } = await sidecar(context, ({ method, url }) => {
      if (method === "POST") return [200, { verdict: "throttled", generation, retry_after: wait }];
      return url.includes("after_generation") ? new Promise(() => {}) : [200, document(generation)];
    });
    const client = new Client(mint(1));
    const handle = keepFresh(client, { ...where, limits: { throttled: 100 } });
    context.after(() => handle.stop());
    await holds(() => asked.length > 1);
    client.move("denied");
    await holds(() => client.isClosed || client.state === "connected");
    await holds(() => client.state === "connected");
    assert.ok(asked.length < 10);
    generation += 1;
  });
}

test("listeners that throw or reject harm nobody", async (context) => {
  const { where } = await sidecar(context, ({ url }) =>
    url.includes("after_generation") ? new Promise(() => {}) : [200, document(2)],
  );
  const client = new Client(mint(1));
  const told = [];
  const handle = keepFresh(client, where)
    .on("updated", () => {
      throw new Error("thrown on purpose");
    })
    .on("updated", async () => {
      throw new Error("rejected on purpose");
    })
    .on("updated", ({ generation }) => told.push(generation));
  await holds(() => told.includes(2));
  handle.stop();
});

test("stop() leaves no listener and no timer behind", async (context) => {
  const { where } = await sidecar(context, () => new Promise(() => {}));
  const client = new Client(mint(1));
  for (let number = 0; number < 100; number++) keepFresh(client, where).stop();
  assert.deepEqual(client.eventNames(), []);
});

test("a client that is made while stop() is called is closed again", async (context) => {
  const { where } = await sidecar(context, ({ method, url }) => {
    if (method === "POST") return [200, { verdict: "denied", generation: 2 }];
    return url.includes("after_generation") ? new Promise(() => {}) : [200, document(2)];
  });
  const client = new Client(mint(1));
  client.updateToken = () => new Promise(() => {});
  client.connect = () => new Promise(() => {});
  let make;
  const made = new Client(mint(2));
  const recreate = () => new Promise((resolve) => (make = () => resolve(made)));
  const handle = keepFresh(client, { ...where, recreate, limits: { deadline: 50, patience: 60 } });
  await holds(() => make);
  handle.stop();
  make();
  await holds(() => made.isClosed);
  assert.deepEqual(made.eventNames(), []);
  assert.equal(handle.client, client);
});

test("a `recreate` that returns no client leaves the old one in place", async (context) => {
  const { where } = await sidecar(context, ({ method, url }) => {
    if (method === "POST") return [200, { verdict: "denied", generation: 2 }];
    return url.includes("after_generation") ? new Promise(() => {}) : [200, document(2)];
  });
  const client = new Client(mint(1));
  client.updateToken = () => new Promise(() => {});
  client.disconnect = async () => client.move("disconnected");
  client.connect = () => new Promise(() => {});
  let calls = 0;
  const told = [];
  const handle = keepFresh(client, { ...where, recreate: () => void calls++, limits: { deadline: 50, patience: 60 } });
  handle.on("gaveUp", ({ diagnosis }) => told.push(diagnosis));
  await holds(() => told.length);
  handle.stop();
  assert.equal(calls, 1);
  assert.equal(handle.client, client);
});
