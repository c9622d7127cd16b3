// The decisions of examples/twilio-js/session.mjs, alone. Run by tests/test_twilio_js_session.py, or `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";

import { LIMITS, begin, step, unfit, wake } from "../../examples/twilio-js/session.mjs";

const claims = (more = {}) => ({ sub: "AC1", grants: { identity: "alice", chat: { service_sid: "IS1" } }, ...more });
const token = (generation, more = {}) => ({
  ...{ text: `token-${generation}`, generation, start: "s", claims: claims() },
  ...{ validUntil: null, validFrom: null, ...more },
});

/** A session whose inputs are given by hand. `did` holds the effects since it was read last. */
class Session {
  constructor({ connection = "connected", held = token(1), can = { reconnect: true, recreate: true } } = {}) {
    this.now = 0;
    this.effects = [];
    this.state = begin({ held, connection, can });
    this.live = connection;
    this.post("start");
  }

  post(kind, more = {}) {
    if (kind === "state") this.live = more.state;
    let effects;
    [this.state, effects] = step(this.state, { kind, live: this.live, ...more }, this.now);
    this.effects.push(...effects);
    return this;
  }

  /** Let *time* pass, with a tick whenever one is due. */
  after(time) {
    const end = this.now + time;
    while (wake(this.state) <= end) {
      this.now = wake(this.state);
      this.post("tick");
    }
    this.now = end;
    return this;
  }

  lose(code, state = "denied") {
    this.post("state", { state });
    return code ? this.post("error", { status: 401, code }) : this.after(100);
  }

  answer(ok = true) {
    return this.post("answered", { serial: this.state.serial, ok });
  }

  get did() {
    const words = this.effects.map(({ do: what, name, what: report, token }) => {
      const about = token ? ` ${token.text}` : "";
      return what === "tell" ? name : what === "report" ? `${report}${about}` : `${what}${about}`;
    });
    this.effects = [];
    return words;
  }

  get told() {
    return this.effects.filter((effect) => effect.do === "tell").map((effect) => effect.details);
  }
}

function attached(options) {
  const session = new Session(options);
  session.effects = [];
  return session;
}

test("a session that is connected has its token accepted", () => {
  assert.deepEqual(new Session().did, ["accepted token-1"]);
});

test("a newer token is handed over, and accepted once the answer is there and the session still connected", () => {
  const session = attached().post("token", { token: token(2) });
  assert.deepEqual(session.did, ["update token-2"]);
  assert.deepEqual(session.answer().did, ["updated", "accepted token-2"]);
});

test("while one update is in flight the next token waits", () => {
  const session = attached()
    .post("token", { token: token(2) })
    .post("token", { token: token(3) });
  assert.deepEqual(session.did, ["update token-2"]);
  assert.deepEqual(session.answer().did, ["updated", "accepted token-2", "update token-3"]);
});

for (const connection of ["connecting", "retrying", "disconnecting", "unknown", "error"]) {
  test(`nothing is handed over while the session is ${connection}`, () => {
    const session = attached()
      .post("state", { state: connection })
      .post("token", { token: token(2) })
      .after(3_600_000);
    assert.ok(!session.did.includes("update token-2"));
  });
}

test("nothing is handed over if the client says that it is settled no more, before its event", () => {
  const session = attached();
  session.live = "disconnecting";
  assert.deepEqual(session.post("token", { token: token(2) }).did, []);
});

test("a client that was never connected is not connected by an update", () => {
  assert.deepEqual(attached({ connection: "disconnected" }).post("token", { token: token(2) }).did, []);
});

test("the same string is never handed over twice", () => {
  const session = attached().post("token", { token: { ...token(9), text: "token-1" } });
  assert.deepEqual(session.did, []);
});

test("a denial is reported with its code, and the next token handed over", () => {
  const session = attached().lose(20104);
  assert.deepEqual(session.did, ["denied", "denied token-1"]);
  assert.deepEqual(session.post("verdict", { verdict: "denied" }).post("token", { token: token(2) }).did, [
    "update token-2",
  ]);
  assert.deepEqual(session.post("state", { state: "connected" }).did, ["updated", "accepted token-2", "recovered"]);
});

test("a promise that rejects does not matter if the session then connects", () => {
  const session = attached()
    .lose(20104)
    .post("token", { token: token(2) })
    .answer(false);
  session.effects = [];
  assert.deepEqual(session.post("state", { state: "connected" }).did, ["updated", "accepted token-2", "recovered"]);
});

test("disconnected out of the blue is a denial without a code", () => {
  const session = attached().post("state", { state: "disconnecting" }).lose(null, "disconnected");
  assert.deepEqual(session.did, ["denied", "denied token-1"]);
});

test("disconnected after the token ran out is a denial that says so", () => {
  const session = attached().post("expired").post("state", { state: "disconnecting" });
  assert.equal(session.lose(null, "disconnected").told[0].code, 51207);
});

test("a lost socket is the SDK's affair", () => {
  assert.deepEqual(attached().post("state", { state: "connecting" }).after(3_600_000).did, []);
});

test("the denied token under the name of another start is reported again", () => {
  const session = attached().lose(20104).post("verdict", { verdict: "superseded" });
  session.effects = [];
  session.post("token", { token: { ...token(1), start: "t" } }).after(100);
  assert.deepEqual(session.did, ["denied", "denied token-1"]);
});

test("what cannot work is not handed over, and said once", () => {
  const bob = token(2, { claims: claims({ grants: { identity: "bob", chat: { service_sid: "IS1" } } }) });
  assert.deepEqual(attached().post("token", { token: bob }).post("token", { token: bob }).did, ["problem"]);
});

for (const [reason, more] of [
  ["another identity", { claims: claims({ grants: { identity: "bob", chat: { service_sid: "IS1" } } }) }],
  ["another service", { claims: claims({ grants: { identity: "alice", chat: { service_sid: "IS2" } } }) }],
  ["lacks the grant", { claims: claims({ grants: { identity: "alice" } }) }],
  ["another account", { claims: claims({ sub: "AC2" }) }],
  ["no Access Token", { claims: null }],
  ["expired", { validUntil: 5 }],
]) {
  test(`a token is kept out: ${reason}`, () => assert.match(unfit(token(2, more), claims(), 10), new RegExp(reason)));
}

test("a token that is not valid yet is handed over when it is", () => {
  const session = attached().post("token", { token: token(2, { validFrom: 7_000 }) });
  assert.deepEqual(session.after(6_999).did, []);
  assert.deepEqual(session.after(1).did, ["update token-2"]);
});

test("an update without an answer: connect again, then a new client, then give up", () => {
  const session = attached().post("token", { token: token(2) });
  assert.deepEqual(session.after(LIMITS.deadline).did, ["update token-2", "problem", "reconnect token-2"]);
  assert.deepEqual(session.after(LIMITS.deadline).did, ["problem", "recreate token-2"]);
  assert.deepEqual(session.after(LIMITS.deadline).did, ["problem", "gaveUp"]);
});

test("without a way to connect again or to make a client it gives up, and says what is missing", () => {
  const session = attached({ can: {} })
    .post("token", { token: token(2) })
    .after(LIMITS.deadline);
  assert.match(session.told.at(-1).diagnosis, /no `recreate`/);
});

test("a client that connects only with another string is disconnected, and another token asked for", () => {
  const session = attached({ can: { reconnect: "drop" } })
    .post("token", { token: token(2) })
    .after(LIMITS.deadline);
  session.effects = [];
  assert.deepEqual(session.post("state", { state: "disconnected" }).did, ["refresh token-2"]);
  assert.deepEqual(session.post("token", { token: token(3) }).did, ["update token-3"]);
});

test("while the SDK is connecting it is given longer", () => {
  const session = attached()
    .lose(20104)
    .post("token", { token: token(2) })
    .post("state", { state: "connecting" });
  session.effects = [];
  assert.deepEqual(session.after(LIMITS.patience - 1).did, ["problem"]);
  assert.deepEqual(session.after(1).did, ["problem", "reconnect token-2"]);
});

test("denied again and again, it waits longer and longer", () => {
  const session = attached();
  const waits = [2, 3, 4, 5, 6].map((generation) => {
    session
      .post("state", { state: "connecting" })
      .lose(20104)
      .post("token", { token: token(generation) });
    const from = session.now;
    for (let turn = 0; turn < 1_000 && !session.did.includes(`update token-${generation}`); turn += 1)
      session.after(50);
    return Math.round((session.now - from) / 1000);
  });
  assert.deepEqual(waits, [0, 1, 2, 4, 8]);
});

test("throttled, it keeps its token and does nothing for a while", () => {
  const session = attached()
    .lose(51202)
    .post("verdict", { verdict: "throttled", retryAfter: 0 })
    .post("token", { token: token(2) });
  assert.ok(!session.did.includes("denied"));
  assert.deepEqual(session.after(LIMITS.throttled - 1).did, []);
});

test("disputed, it keeps its token and connects again", () => {
  const session = attached().lose(20104);
  session.effects = [];
  assert.deepEqual(session.post("verdict", { verdict: "disputed" }).did, ["reconnect token-1"]);
});

test("forbidden, it gives up with the reason", () => {
  const session = attached().lose(20104).post("verdict", { verdict: "forbidden" });
  assert.match(session.told.at(-1).diagnosis, /forbids/);
});

test("a client that is of no use is replaced; without a way to make one it is said", () => {
  assert.deepEqual(
    attached()
      .post("token", { token: token(1) })
      .post("broken", { message: "x" }).did,
    ["problem", "recreate token-1"],
  );
  assert.deepEqual(attached({ can: {} }).post("broken", { message: "x" }).did, ["problem"]);
});

test("when the sidecar gave up it waits as long as it is told, then reports again", () => {
  const session = attached().lose(20104).post("verdict", { verdict: "gave_up", retryAfter: 120 });
  assert.deepEqual(session.did, ["denied", "denied token-1", "gaveUp"]);
  assert.deepEqual(session.after(119_000).did, []);
  assert.deepEqual(session.after(1_100).did, ["denied", "denied token-1"]);
});

test("having given up it still tries a token that it has not tried", () => {
  const session = attached().lose(20104).post("verdict", { verdict: "gave_up", retryAfter: 120 });
  session.effects = [];
  session.post("token", { token: token(2) });
  assert.deepEqual(session.did, ["update token-2"]);
});

test("without an answer to tell, an update counts after a quiet time without a denial", () => {
  const session = attached({ can: { quiet: 2_000 } })
    .post("token", { token: token(2) })
    .answer();
  assert.deepEqual(session.after(1_999).did, ["update token-2"]);
  assert.deepEqual(session.after(1).did, ["updated", "accepted token-2"]);
});

test("a client that is idle by choice takes a token at once", () => {
  const session = attached({ connection: "idle" })
    .post("token", { token: token(2) })
    .answer();
  assert.deepEqual(session.did, ["update token-2", "updated"]);
});

/** A server, an SDK and a sidecar that do anything at all until `isKind`. */
class World {
  constructor(random, outcomes) {
    Object.assign(this, {
      random,
      outcomes,
      session: new Session({ can: { reconnect: random() < 0.5, recreate: random() < 0.7 } }),
    });
    Object.assign(this, { generation: 1, hangs: false, handed: "token-1", mints: 0, log: [] });
    this.agenda = [];
    this.isKind = false;
    this.session.effects = [];
    this.renew();
  }

  pick(...choices) {
    return choices[Math.floor(this.random() * choices.length)];
  }

  later(delay, act) {
    this.agenda.push({ at: this.session.now + delay, act });
    this.agenda.sort((one, other) => one.at - other.at);
  }

  post(kind, more) {
    this.session.post(kind, more);
    const effects = this.session.effects.splice(0);
    for (const effect of effects) this.obey(effect);
  }

  obey(effect) {
    this.log.push(effect.do === "tell" ? effect.name : `${effect.do} ${effect.token?.text ?? ""}`);
    const { serial } = effect;
    if (effect.do === "update") {
      assert.ok(
        ["connected", "denied", "disconnected"].includes(this.session.live),
        `handed over while ${this.session.live}`,
      );
      assert.notEqual(effect.token.text, this.handed, "the same string twice");
      assert.ok(!this.hangs, "two updates in flight");
      assert.ok(!effect.token.text.includes("bad"), "a token that cannot work");
      this.hangs = true;
    }
    if (effect.token && effect.do !== "report") this.handed = effect.token.text;
    if (["update", "reconnect", "recreate"].includes(effect.do)) {
      if (effect.do !== "update") this.hangs = false;
      const outcome = this.isKind ? "settles" : this.pick(...this.outcomes);
      this.later(10 + this.random() * 500, () => this.resolve(effect, serial, outcome));
    }
    if (effect.do === "report" && effect.what === "denied") {
      const verdict = this.isKind
        ? "denied"
        : this.pick("denied", "denied", "denied", "superseded", "throttled", "disputed", "gave_up", "forbidden");
      const { token } = effect;
      this.later(20, () => this.post("verdict", { verdict, token, retryAfter: this.pick(null, 30) }));
      this.later(this.random() * 5_000, () => this.mint());
    }
    if (effect.do === "refresh") this.later(this.random() * 2_000, () => this.mint());
  }

  resolve({ do: kind }, serial, outcome) {
    const answer = (ok) => this.post("answered", { serial, ok });
    if (outcome === "hangs") return;
    this.hangs = false;
    if (kind === "recreate" && outcome !== "fails") this.session.live = "connecting";
    if (kind === "recreate" && outcome !== "fails")
      this.post("recreated", { connection: "connecting", can: this.session.state.can });
    if (outcome === "settles") {
      if (this.session.live !== "connected") this.state("connecting");
      this.state("connected");
      answer(true);
    } else if (outcome === "fails") {
      this.state("denied");
      this.post("error", { status: 401, code: this.pick(20104, 51215, 51202) });
      answer(false);
    } else answer(true); // A lie: nothing came of it.
  }

  state(state) {
    if (state !== this.session.live || state === "denied") this.hangs = false; // Its answer can mean nothing any more.
    this.post("state", { state });
  }

  mint() {
    const isNew = this.isKind || this.random() < 0.8;
    this.generation += isNew ? 1 : 0;
    const bad = !this.isKind && this.random() < 0.1;
    const text = `token-${this.generation}${bad ? "-bad" : ""}`;
    this.post("token", { token: token(this.generation, { text, claims: bad ? null : claims() }) });
  }

  renew() {
    this.mint();
    this.later(300_000, () => this.renew());
  }

  /** What is under way comes to an end. */
  settle() {
    if (["connecting", "retrying"].includes(this.session.live)) this.state("connected");
    if (!["connected", "denied"].includes(this.session.live)) this.state("disconnected");
    this.later(60_000, () => this.settle());
  }

  disturb() {
    const choices = ["connecting", "retrying", "connected", "disconnecting", "disconnected", "denied"];
    this.pick(
      () => this.state(this.pick(...choices)),
      () => this.mint(),
      () => this.post("expired"),
      () => this.post("error", { status: this.pick(null, 401, 406, 429, 500), code: this.pick(null, 51202, 20104) }),
      () => this.post("broken", { message: "x" }),
    )();
  }

  run(length) {
    const end = this.session.now + length;
    for (let turn = 0; turn < 10_000; turn += 1) {
      const due = Math.min(this.agenda[0]?.at ?? Infinity, wake(this.session.state));
      if (due > end) break;
      this.session.now = Math.max(due, this.session.now);
      if (this.agenda[0]?.at <= this.session.now) this.agenda.shift().act();
      else this.post("tick");
    }
    this.session.now = end;
  }
}

function dice(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

test("whatever happens, one update at a time, in a settled state, never the same string; and in the end it is connected", () => {
  for (let seed = 1; seed <= 400; seed += 1) {
    const random = dice(seed);
    const world = new World(random, ["settles", "hangs", "fails", "lies"]);
    for (let turn = 0; turn < 60; turn += 1) {
      world.disturb();
      world.run(random() * (random() < 0.2 ? 60_000 : 1_000));
    }
    world.isKind = true;
    world.settle();
    world.run(LIMITS.probe * 4);
    const { connection, attempt, hanging } = world.session.state;
    // An update that is never answered is in flight for ever: without a new client there is nothing to be done.
    if (hanging) assert.ok(world.log.includes("gaveUp"), `seed ${seed}: ${world.log.slice(-12)}`);
    else assert.deepEqual([connection, attempt], ["connected", null], `seed ${seed}: ${world.log.slice(-12)}`);
  }
});

for (const outcome of ["hangs", "fails", "lies"]) {
  test(`where every update ${outcome}, it gives up within bounds, and says why`, () => {
    for (let seed = 1; seed <= 50; seed += 1) {
      const world = new World(dice(seed), [outcome]);
      world.state("denied");
      world.run(3_600_000);
      assert.ok(world.log.includes("gaveUp"), `seed ${seed}`);
      const tries = world.log.filter((line) => /^(update|reconnect|recreate)/.test(line)).length;
      assert.ok(tries < 400, `seed ${seed}: ${tries} tries in an hour`);
    }
  });
}
