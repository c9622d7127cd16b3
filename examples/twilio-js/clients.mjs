// What the SDKs' clients have in common, though each has it under other names. The rest of these
// files knows no SDK. An adapter says what happens: {kind: "state" | "error" | "expired" | "broken"}.

/** Codes with which Twilio refuses a token, whatever the product; Voice has some of its own. */
export const TOKEN_CODES = [20101, 20102, 20103, 20104, 20105, 20106, 20107, 20151, 20156, 20157, 20160];

const DENYING = new Set([...TOKEN_CODES, 31201, 31204, 31205, 31207]);
const VOICE_STATES = {
  registered: "connected",
  registering: "connecting",
  unregistered: "idle",
  destroyed: "disconnected",
};
const isDoing = (client, ...names) => names.every((name) => typeof client?.[name] === "function");

/** Return the adapter for *client*, whichever SDK it is of. */
export function adapt(client) {
  if (isDoing(client, "updateToken", "register", "updateOptions")) return voice(client);
  if (isDoing(client, "updateToken", "shutdown", "getConversationBySid")) return conversations(client);
  if (isDoing(client, "updateToken", "shutdown", "document")) return sync(client);
  if (isDoing(client, "updateToken", "connect", "disconnect")) return twilsock(client);
  throw new TypeError(
    "keepFresh() was given no client of twilsock, twilio-sync, @twilio/conversations or @twilio/voice-sdk",
  );
}

function twilsock(client) {
  return {
    reconnects: true,
    token: () => client.config?.token,
    state: () => client.state,
    update: (token) => client.updateToken(token),
    reconnect: () => client.disconnect().then(() => client.connect()),
    close: () => client.disconnect(),
    listen: (say) =>
      listening(client, { stateChanged: (state) => say({ kind: "state", state }), ...common(client, say) }),
  };
}

function sync(client) {
  const inner = client.services?.twilsock;
  return {
    reconnects: false, // shutdown() drops every subscription
    token: () => inner?.config?.token,
    state: () => client.connectionState,
    update: (token) => client.updateToken(token),
    close: () => client.shutdown(),
    listen: (say) =>
      listening(client, { connectionStateChanged: (state) => say({ kind: "state", state }), ...common(inner, say) }),
  };
}

function conversations(client) {
  const inner = client._services?.twilsockClient;
  let again = null;
  return {
    reconnects: "drop", // no connect(): it connects when it gets another token
    token: () => inner?.config?.token,
    state: () => inner?.state ?? client.connectionState,
    async update(token) {
      again = token;
      await client.updateToken(token);
      again = null;
    },
    reconnect: () => client.shutdown(),
    close: () => client.shutdown(),
    listen(say) {
      let isHeard = true;
      const fail = (message) => isHeard && say({ kind: "broken", message });
      const unlisten = listening(client, {
        connectionStateChanged: (state) => say({ kind: "state", state }),
        stateChanged(state) {
          if (state === "failed" && client.connectionState === "connected") fail("the client did not become ready");
          if (state !== "initialized") return;
          // Nobody else catches this one. It fails for good if the connection is lost just now.
          client._conversationsPromise?.catch(() => fail("the client could not fetch its conversations"));
          // After a denied first connect an update is sent, and yet rejected before all parts have the token.
          if (again) client.updateToken(again).catch(() => {});
        },
        ...common(inner, say),
      });
      return () => {
        isHeard = false;
        unlisten();
      };
    },
  };
}

function voice(device) {
  const quiet = 2_000; // updateToken() tells nothing: a refusal would have come by then
  let isDenied = false;
  let changed = () => {};
  const state = () => (isDenied ? "denied" : VOICE_STATES[device.state]);
  return {
    reconnects: true,
    quiet,
    token: () => device.token,
    state,
    update(token) {
      isDenied = false;
      device.updateToken(token);
      if (device.state === "registered") setTimeout(() => changed(), quiet).unref?.();
      else changed();
    },
    async reconnect() {
      isDenied = false;
      if (device.state === "registered") await device.unregister();
      await device.register();
    },
    close: () => device.destroy(),
    listen(say) {
      changed = () => say({ kind: "state", state: state() });
      return listening(device, {
        registered: () => ((isDenied = false), changed()),
        ...{ registering: changed, unregistered: changed, destroyed: changed },
        error({ code }) {
          isDenied ||= DENYING.has(code);
          say({ kind: "error", code });
          changed();
        },
      });
    },
  };
}

function common(twilsockClient, say) {
  // Without a listener twilsock throws where nobody catches, and remains "connected", if the socket is
  // lost during an update. With one it connects again.
  twilsockClient?.channel?.on?.("error", () => {});
  return {
    connectionError: (error) => say({ kind: "error", status: error?.httpStatusCode, code: error?.errorCode }),
    tokenExpired: () => say({ kind: "expired" }),
  };
}

function listening(emitter, listeners) {
  for (const [name, listener] of Object.entries(listeners)) emitter.on(name, listener);
  return () => {
    for (const [name, listener] of Object.entries(listeners)) emitter.off(name, listener);
  };
}
