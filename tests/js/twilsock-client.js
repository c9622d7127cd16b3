"use strict";

// Drives the real twilsock client for tests/test_twilsock_npm.py. Each line of standard input is an
// order, each line of standard output an event; both are JSON. Tokens come in and are never written.

const readline = require("node:readline");
const { Twilsock } = require("twilsock");

let client;

function say(event, details = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...details })}\n`);
}

const orders = {
  connect({ url, token }) {
    client = new Twilsock(token, "chat", { twilsock: { uri: url }, logLevel: "silent" });
    for (const event of ["connected", "disconnected", "tokenAboutToExpire", "tokenExpired"]) {
      client.on(event, () => say(event));
    }
    client.on("stateChanged", (state) => say("stateChanged", { state }));
    client.on("connectionError", ({ terminal, httpStatusCode, errorCode, message }) =>
      say("connectionError", { terminal, httpStatusCode, errorCode, message }),
    );
    client.connect();
  },
  update({ token }) {
    client.updateToken(token).then(
      () => say("updateResolved"),
      (error) => say("updateRejected", { message: error.message }),
    );
  },
  disconnect() {
    client.disconnect().then(() => say("disconnectResolved"));
  },
};

readline
  .createInterface({ input: process.stdin })
  .on("line", (line) => {
    const order = JSON.parse(line);
    orders[order.order](order);
  })
  .on("close", () => process.exit(0));
