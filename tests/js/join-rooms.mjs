// Stays in a room whose server refuses tokens twice, for tests/test_twilio_js_examples.py: `connect`
// stands for twilio-video's, which works in browsers only. Says which tokens were shown, by fingerprint.

import { createHash } from "node:crypto";
import { EventEmitter } from "node:events";

import { stay } from "../../examples/twilio-js/video.mjs";

const shown = [];
let rooms = 0;

async function connect(token) {
  shown.push(createHash("sha256").update(token).digest("hex").slice(0, 8));
  if (shown.length === 2) throw Object.assign(new Error("refused"), { code: 20101 });
  return Object.assign(new EventEmitter(), { disconnect() {} });
}

const where = { socketPath: process.argv[2], token: "chat" };
const session = stay(
  connect,
  where,
  {},
  {
    entered(room) {
      rooms += 1;
      if (rooms === 1) room.emit("disconnected", room, { code: 20104 });
      else {
        session.leave();
        process.stdout.write(JSON.stringify({ shown, rooms }));
      }
    },
    failed(error) {
      process.stderr.write(`${error?.message}\n`);
      process.exitCode = 1;
    },
  },
);
