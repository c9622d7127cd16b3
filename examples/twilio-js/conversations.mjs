// A Conversations client that stays connected. Needs `npm install @twilio/conversations`.
//
//   TOKEN_KEEPER_SOCKET=/run/token-keeper/api.sock node conversations.mjs chat
import Conversations from "@twilio/conversations";

import { fetchToken, keepFresh } from "./keeper.mjs";

const socketPath = process.env.TOKEN_KEEPER_SOCKET ?? "/run/token-keeper/api.sock";
const where = { socketPath, token: process.argv[2] ?? "chat", recreate: create };
const options = JSON.parse(process.env.TWILIO_OPTIONS ?? "{}"); // such as {"region": "ie1"}

function create(token) {
  const client = new Conversations.Client(token, options);
  client.on("connectionStateChanged", (state) => console.log(state));
  client.on("messageAdded", (message) => console.log(`${message.author}: ${message.body}`));
  return client;
}

const handle = keepFresh(create(await fetchToken(where)), where);
handle.on("updated", ({ generation }) => console.log(`token: generation ${generation}`));
handle.on("problem", ({ message }) => console.warn(message));
handle.on("gaveUp", ({ diagnosis }) => console.error(diagnosis));

// The SDK leaves some rejections to nobody if it is disconnected while it starts; Node would end here.
process.on("unhandledRejection", (error) => console.warn(`unhandled: ${error?.message}`));
process.once("SIGTERM", async () => {
  handle.stop();
  await handle.client.shutdown();
  process.exit();
});
