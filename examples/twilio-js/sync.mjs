// A Sync client that stays connected. Needs `npm install twilio-sync`.
//
//   TOKEN_KEEPER_SOCKET=/run/token-keeper/api.sock node sync.mjs sync
import Sync from "twilio-sync";

import { fetchToken, keepFresh } from "./keeper.mjs";

const socketPath = process.env.TOKEN_KEEPER_SOCKET ?? "/run/token-keeper/api.sock";
const where = { socketPath, token: process.argv[2] ?? "sync", recreate: create };
const options = JSON.parse(process.env.TWILIO_OPTIONS ?? "{}"); // such as {"region": "ie1"}

function create(token) {
  const client = new Sync.Client(token, options);
  client.on("connectionStateChanged", (state) => console.log(state));
  return client;
}

const handle = keepFresh(create(await fetchToken(where)), where);
handle.on("updated", ({ generation }) => console.log(`token: generation ${generation}`));
handle.on("client", () => console.log("a new client: open its documents, lists and maps again"));
handle.on("problem", ({ message }) => console.warn(message));
handle.on("gaveUp", ({ diagnosis }) => console.error(diagnosis));

process.once("SIGTERM", async () => {
  handle.stop();
  await handle.client.shutdown();
  process.exit();
});
