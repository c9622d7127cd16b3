// Providers of the npm package oidc-provider, for the tests of OAuth 2.0. Each line of standard input is an order,
// each line of standard output an event; both are JSON. No token is ever written.
//
//   serve  {name, clients, accessSeconds, refreshSeconds, deviceSeconds, graceSeconds, graceLimit, format, scopes}
//   cut    {name, answers}   the next answers of the token endpoint get lost, after it acted
//   hold   {name}            the next one is kept back until `release`; event `held`
//   count  {name}            event `counts`

import { generateKeyPairSync } from "node:crypto";
import http from "node:http";
import path from "node:path";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

import { Memory } from "./memory.mjs";

// Standard output is for events, and that features are experimental is no news here.
console.info = console.warn = () => {};

// A module is not looked for in NODE_PATH.
const entry = path.join(process.env.NODE_PATH, "oidc-provider", "lib", "index.js");
const { default: Provider } = await import(pathToFileURL(entry));

const RESOURCE = "https://api.example";
const ALGORITHM = "ES256";
const KEY = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
const served = new Map();

function tell(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

function complain(error) {
  // Whoever was killed while it sent its request is no fault of ours.
  if (!/^(HPE_|ECONN|EPIPE)/.test(error.code)) process.stderr.write(`${error.stack}\n`);
}

class Served {
  constructor(order) {
    this.name = order.name;
    this.counts = { requests: 0, granted: 0, rotated: 0, replayed: 0, reused: 0, grantsRevoked: 0, errors: {} };
    this.cuts = 0;
    this.held = undefined;
    this.server = http.createServer((request, response) => this.answer(request, response));
    this.server.keepAliveTimeout = 60_000;
    this.server.listen(0, "127.0.0.1", () => this.#start(order));
  }

  #start(order) {
    const issuer = `http://127.0.0.1:${this.server.address().port}`;
    const provider = new Provider(issuer, configuration(order, () => (this.counts.replayed += 1)));
    provider.use((ctx, next) => this.#around(ctx, next));
    provider.on("grant.success", () => (this.counts.granted += 1));
    provider.on("grant.revoked", () => (this.counts.grantsRevoked += 1));
    provider.on("refresh_token.consumed", () => (this.counts.rotated += 1));
    provider.on("error", complain);
    provider.on("server_error", (_, error) => complain(error));
    provider.on("grant.error", (_, error) => {
      this.counts.errors[error.error] = (this.counts.errors[error.error] ?? 0) + 1;
      if (error.error_detail === "refresh token already used") this.counts.reused += 1;
    });
    this.answer = provider.callback();
    tell({ event: "serving", name: this.name, issuer });
  }

  async #around(ctx, next) {
    const isForTokens = ctx.method === "POST" && ctx.path === "/token";
    if (isForTokens) this.counts.requests += 1;
    await next();
    if (isForTokens) await this.#deliver(ctx);
  }

  async #deliver(ctx) {
    if (this.held?.waits) {
      this.held.waits = false;
      tell({ event: "held", name: this.name });
      await this.held.released;
    }
    if (this.cuts > 0) {
      this.cuts -= 1;
      ctx.respond = false;
      ctx.req.socket.destroy();
      tell({ event: "cut", name: this.name });
    }
  }

  hold() {
    let release;
    const released = new Promise((resolve) => (release = resolve));
    this.held = { waits: true, released, release };
  }
}

function configuration(order, onReplay) {
  const memory = new Memory(order, onReplay);
  const { accessSeconds = 3600, refreshSeconds = 86400, deviceSeconds = 600 } = order;
  const api = { scope: "read write", accessTokenTTL: accessSeconds };
  const resourceServer =
    order.format === "jwt" ? { ...api, accessTokenFormat: "jwt", jwt: { sign: { alg: ALGORITHM } } } : api;
  return {
    adapter: (model) => memory.adapter(model),
    clients: order.clients,
    clientDefaults: { id_token_signed_response_alg: ALGORITHM, redirect_uris: [], response_types: [] },
    jwks: { keys: [{ ...KEY, alg: ALGORITHM, use: "sig" }] },
    scopes: ["openid", "offline_access"],
    rotateRefreshToken: true,
    ttl: {
      AccessToken: accessSeconds,
      ClientCredentials: accessSeconds,
      DeviceCode: deviceSeconds,
      RefreshToken: refreshSeconds,
    },
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      devInteractions: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: async (_, __, oneOf) => oneOf ?? RESOURCE,
        useGrantedResource: async () => true,
        getResourceServerInfo: async () => resourceServer,
      },
    },
  };
}

const ORDERS = {
  serve: (order) => served.set(order.name, new Served(order)),
  cut: ({ name, answers }) => (served.get(name).cuts = answers),
  hold: ({ name }) => served.get(name).hold(),
  release: ({ name }) => served.get(name).held.release(),
  count: ({ name }) => tell({ event: "counts", name, ...served.get(name).counts }),
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  ORDERS[order.order](order);
}
process.exit(0);
