// Keeps a client of a real SDK fresh, for tests/test_twilio_js*.py. Each line of standard input is an
// order, each line of standard output an event; both are JSON. No token is ever written.

import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";

import { fetchToken, keepFresh } from "../../examples/twilio-js/keeper.mjs";

const require = createRequire(path.join(process.env.NODE_PATH, "x.js"));
const sessions = new Map();

const MAKERS = {
  twilsock(url, token) {
    const { Twilsock } = require("twilsock");
    const client = new Twilsock(token, "chat", { twilsock: { uri: url }, logLevel: "silent" });
    client.connect();
    return client;
  },
  sync(url, token) {
    const { Client } = require("twilio-sync");
    return new Client(token, { twilsock: { uri: url }, logLevel: "silent", Sync: { enableSessionStorage: false } });
  },
  conversations(url, token) {
    const { Client } = require("@twilio/conversations");
    return new Client(token, { twilsock: { uri: url }, logLevel: "silent", Sync: { enableSessionStorage: false } });
  },
};

function say(name, event, details = {}) {
  process.stdout.write(`${JSON.stringify({ name, event, ...details })}\n`);
}

function watch(name, client) {
  const event = "connectionState" in client ? "connectionStateChanged" : "stateChanged";
  client.on(event, (state) => say(name, "state", { state }));
  if (event === "connectionStateChanged") client.on("stateChanged", (state) => say(name, "client", { state }));
  client.on("tokenAboutToExpire", () => say(name, "warned"));
  return client;
}

// Conversations leaves rejections to nobody if it is disconnected while it starts. Ours have no such name.
process.on("unhandledRejection", (error) => {
  if (!["TwilsockError", "TransportUnavailableError", "SyncError"].includes(error?.constructor?.name)) throw error;
});

const orders = {
  async open({ name, sdk, url, where, limits, recreates = false }) {
    const make = (token) => watch(name, MAKERS[sdk](url, token));
    const client = make(await fetchToken(where));
    const handle = keepFresh(client, { ...where, limits, ...(recreates && { recreate: make }) });
    handle.on("updated", (details) => say(name, "updated", details));
    handle.on("denied", (details) => say(name, "denied", details));
    handle.on("recovered", (details) => say(name, "recovered", details));
    handle.on("gaveUp", (details) => say(name, "gaveUp", details));
    handle.on("client", () => say(name, "recreated"));
    handle.on("problem", (details) => say(name, "problem", details));
    sessions.set(name, handle);
  },
  async fetch({ name, where, options }) {
    const { insteadOf, ...more } = options ?? {};
    const token = await fetchToken(where, insteadOf ? { insteadOf: await fetchToken(where), ...more } : undefined);
    const digest = createHash("sha256").update(token).digest("hex").slice(0, 8);
    say(name, "fetched", { fingerprint: digest });
  },
  stop({ name }) {
    sessions.get(name).stop();
    say(name, "stopped");
  },
};

readline
  .createInterface({ input: process.stdin })
  .on("line", (line) => {
    const order = JSON.parse(line);
    Promise.resolve(orders[order.order](order)).catch((error) =>
      say(order.name, "failed", { message: error.message, status: error.status }),
    );
  })
  .on("close", () => process.exit(0));
