// Keeps a Device of the real @twilio/voice-sdk fresh, for tests/test_twilio_js_voice.py. As kept-client.mjs.
// The SDK is made for browsers: it gets the few things of one that its signalling needs.

import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";

import { fetchToken, keepFresh } from "../../examples/twilio-js/keeper.mjs";

const require = createRequire(path.join(process.env.NODE_PATH, "x.js"));
const WebSocket = require("ws");

globalThis.WebSocket = class extends WebSocket {
  constructor(url) {
    super(url.replace(/^wss:/, "ws:")); // The SDK knows only wss; the test's server is on this machine.
  }
};
Object.assign(globalThis, { window: globalThis, location: { protocol: "http:", host: "localhost" } });
Object.assign(globalThis, { addEventListener() {}, removeEventListener() {} });
globalThis.navigator ??= { userAgent: "node", platform: "node" };

const { Device } = require("@twilio/voice-sdk");

function say(event, details = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...details })}\n`);
}

const orders = {
  async open({ address, where, registers = true }) {
    const token = await fetchToken(where);
    const device = new Device(token, {
      chunderw: address,
      eventgw: "127.0.0.1:9",
      logLevel: "silent",
      disableAudioContextSounds: true,
    });
    for (const event of ["registered", "unregistered", "tokenWillExpire"]) device.on(event, () => say(event));
    device.on("error", ({ code }) => say("error", { code }));
    const handle = keepFresh(device, where);
    for (const event of ["updated", "denied", "recovered", "gaveUp", "problem"])
      handle.on(event, (details) => say(event, details));
    if (registers) device.register().catch(() => {});
  },
};

readline
  .createInterface({ input: process.stdin })
  .on("line", (line) => {
    const order = JSON.parse(line);
    orders[order.order](order).catch((error) => say("failed", { message: error.message }));
  })
  .on("close", () => process.exit(0));
