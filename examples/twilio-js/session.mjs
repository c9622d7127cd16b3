// Decides when a session is given a token, and what follows from what it does. Acts on nothing:
// step(state, input, now) -> [state, effects], and wake(state) says when to come back. Times are ms.

export const LIMITS = {
  deadline: 20_000, // for a session to show that a token was taken
  patience: 120_000, // the same while the SDK is connecting: it retries by itself
  backoff: 1_000, // after the second denial in a row, doubling
  backoffMax: 60_000,
  throttled: 30_000, // if the server does not say how long, doubling
  probe: 300_000, // after giving up
  calm: 30_000, // without trouble for so long, the next one is a new one
};

const SETTLED = new Set(["connected", "denied", "disconnected", "idle"]);
const TRYING = new Set(["connecting", "retrying"]);
const THROTTLED = new Set([429, 51002, 51126, 51128, 51201, 51202]);
const EXPIRED = 51207;
const LINGER = 50; // SDKs say the code just after the state

/** The state of a session that has *held*, a token or null. *can*: {reconnect, recreate, quiet}. */
export function begin({ held = null, connection = "unknown", can = {}, limits = {} }) {
  return {
    can,
    limits: { ...LIMITS, ...limits },
    connection, // as its last event said
    live: connection, // as the client says
    begun: !["unknown", "disconnected"].includes(connection), // else nobody has connected it yet
    held, // the token that it was given last
    newest: null, // the sidecar's
    baseline: held?.claims ?? null, // whose session it is
    taken: held?.text ?? null, // the last string that its server took,
    refused: null, // that it refused,
    unfit: null, // and that was not handed over
    attempt: null, // what is being tried: {kind, from, serial, at, deadline, answered}
    hanging: null, // the update that is in flight, by serial, also when nobody waits for it any more
    serial: 0,
    loss: null, // {at}: the session was lost; its token is about to be reported
    error: null, // {status, code}, the last
    troubled: false, // not recovered yet
    arrivedAt: -Infinity,
    isBroken: false, // connected or not, it is of no use
    climb: false, // the next means is to be tried
    rung: 0, // how many were
    denials: 0, // in a row
    throttles: 0,
    notBefore: 0,
    givenUp: null, // {until}
  };
}

/** Say what follows from *input*. Its `live` is what the client says of its connection at this moment. */
export function step(before, input, now) {
  const state = { ...before, live: input.live ?? before.live };
  const effects = [];
  INPUTS[input.kind](state, input, now, effects);
  lose(state, now, effects);
  judge(state, now, effects);
  move(state, now, effects);
  return [state, effects];
}

/** Return when the next tick is due, in ms; Infinity if nothing is. */
export function wake(state) {
  const { attempt, loss, givenUp, newest, notBefore } = state;
  const times = [attempt?.deadline, loss?.at + LINGER, givenUp?.until];
  if (!attempt && (state.climb || isNew(state))) times.push(notBefore, newest?.validFrom);
  return Math.min(...times.map((time) => (time > state.now ? time : Infinity)));
}

const INPUTS = {
  start(state, _, now, effects) {
    if (state.connection === "denied") state.loss = { at: now };
    if (state.connection === "connected") arrive(state, now, effects);
  },
  tick() {},
  token(state, { token }, now) {
    state.newest = token;
    if (state.attempt?.kind === "refresh" && isNew(state)) state.attempt = null;
    if (token.text !== state.held?.text) return;
    const isOther = token.generation !== state.held.generation || token.start !== state.held.start;
    state.held = token;
    // The same string under a new name: what was said of the old name was said of nothing.
    if (isOther && state.refused === token.text && !state.attempt && !isUp(state)) state.loss = { at: now };
  },
  state(state, { state: connection }, now, effects) {
    const was = state.connection;
    if (TRYING.has(connection) || connection === "connected") state.begun = true;
    state.connection = connection;
    if (connection !== was || connection === "denied") state.hanging = null;
    if (connection === "connected" && was !== "connected") arrive(state, now, effects);
    else if (connection === "denied" && (was !== "denied" || state.attempt)) state.loss = { at: now };
    else if (connection === "disconnected" && was !== "disconnected" && state.begun) end(state, now, effects);
  },
  error(state, { status, code }, now, effects) {
    state.error = { status, code };
    if (state.loss && (status || code)) state.loss = { at: now - LINGER };
    if (THROTTLED.has(code) || THROTTLED.has(status)) slow(state, 0, now, effects);
  },
  expired(state) {
    state.error = { code: state.error?.code ?? EXPIRED };
  },
  broken(state, { message }, now, effects) {
    state.isBroken = true;
    tell(effects, "problem", { message: `${message}: a new client is needed, made by \`recreate\`` });
  },
  answered(state, { serial, ok }, now, effects) {
    const { attempt } = state;
    if (state.hanging === serial) state.hanging = null;
    if (attempt?.serial !== serial) return;
    state.attempt = { ...attempt, answered: true };
    if (!ok && attempt.kind === "recreate") return fail(state, now);
    if (!ok || attempt.kind !== "update") return;
    if (attempt.from === "idle") arrive(state, now, effects);
    else if (attempt.from === "connected" && state.can.quiet) state.attempt.deadline = now + state.can.quiet;
    else if (attempt.from === "connected" && isUp(state) && !state.loss) arrive(state, now, effects);
  },
  recreated(state, { connection, can }, now, effects) {
    Object.assign(state, { connection, can, begun: true, isBroken: false });
    if (connection === "connected") arrive(state, now, effects);
  },
  verdict(state, { verdict, retryAfter, token }, now, effects) {
    if (token && token.text !== state.refused) return; // Another one is being tried.
    const wait = (retryAfter ?? 0) * 1000;
    if (verdict === "gave_up")
      giveUp(state, "the sidecar saw too many tokens denied: see its event recoveryFailed", wait, now, effects);
    if (verdict === "forbidden")
      giveUp(state, "the server forbids what was asked; another token would not help", wait, now, effects);
    if (verdict !== "throttled" && verdict !== "disputed") return;
    state.refused = null;
    if (verdict === "throttled") slow(state, wait, now, effects);
    if (!isUp(state) && !TRYING.has(state.connection)) fail(state, now);
  },
};

const isUp = (state) => state.connection === "connected" && state.live === "connected";
const isSettled = (state) => state.begun && SETTLED.has(state.connection) && SETTLED.has(state.live);
const isNew = ({ newest, held, refused, unfit }) =>
  newest !== null && ![held?.text, refused, unfit].includes(newest.text);
const tell = (effects, name, details) => effects.push({ do: "tell", name, details });

/** The session has what it was given. */
function arrive(state, now, effects) {
  const { attempt, held } = state;
  Object.assign(state, { attempt: null, loss: null, error: null, refused: null, climb: false, givenUp: null });
  if (attempt?.kind === "update") state.rung = 0;
  if (attempt && held.text !== state.taken) tell(effects, "updated", { generation: held.generation });
  state.taken = held?.text ?? null;
  if (held && attempt?.from !== "idle") effects.push({ do: "report", what: "accepted", token: held });
  if (state.troubled) tell(effects, "recovered", { generation: held?.generation ?? null });
  Object.assign(state, { troubled: false, arrivedAt: now });
  state.baseline ??= held?.claims ?? null;
}

/** It is disconnected: by our own hand, or as good as denied. */
function end(state, now, effects) {
  if (state.attempt?.kind !== "reconnect") state.loss = { at: now };
  else if (state.can.reconnect === "drop") replace(state, now, effects);
}

/** It connects again only with another string. */
function replace(state, now, effects) {
  state.refused = state.held?.text ?? null;
  hand(state, "refresh", state.held, now, effects);
}

/** Report the token that was refused, once its code is known or will not come. */
function lose(state, now, effects) {
  if (!state.loss || now < state.loss.at + LINGER) return;
  const code = state.error?.code ?? state.error?.status ?? null;
  const isMisunderstood = state.error?.status === 406;
  Object.assign(state, { loss: null, attempt: null, error: null, climb: false, troubled: true });
  relax(state, now);
  if (isMisunderstood) {
    state.rung = Math.max(state.rung, 1);
    return fail(state, now);
  }
  state.denials += 1;
  if (state.denials > 1)
    state.notBefore = Math.max(state.notBefore, now + doubled(state.limits.backoff, state.denials - 2, state));
  if (!THROTTLED.has(code)) tell(effects, "denied", { code, generation: state.held?.generation ?? null });
  state.refused = state.held?.text ?? null;
  if (state.held) effects.push({ do: "report", what: "denied", token: state.held, code });
}

/** Look whether what was tried has led anywhere. */
function judge(state, now, effects) {
  const { attempt, limits } = state;
  if (!attempt || now < attempt.deadline) return;
  if (attempt.answered && state.can.quiet && isUp(state)) return arrive(state, now, effects);
  if (TRYING.has(state.connection) && now < attempt.at + limits.patience) {
    state.attempt = { ...attempt, deadline: attempt.at + limits.patience };
    return tell(effects, "problem", {
      message: "the session does not get through to its server; its SDK goes on trying",
    });
  }
  tell(effects, "problem", { message: `no answer to the ${attempt.kind} within its time; the next means is tried` });
  fail(state, now);
}

/** Hand over a token, or try the next means; at most one thing at a time. */
function move(state, now, effects) {
  state.now = now;
  if (state.givenUp && now >= state.givenUp.until) revive(state, now);
  if (state.attempt || state.loss || now < state.notBefore) return;
  if (isNew(state)) weigh(state, now, effects);
  if (state.isBroken && state.can.recreate) Object.assign(state, { climb: true, rung: 2 });
  if (state.climb) climb(state, now, effects);
  else if (isNew(state) && isSettled(state) && !state.hanging && now >= (state.newest.validFrom ?? 0)) {
    hand(state, "update", state.newest, now, effects);
  }
}

/** Try the next means: connect again, make a new client, give up. */
function climb(state, now, effects) {
  const { reconnect } = state.can;
  if (state.rung <= 1 && (reconnect === true || (reconnect && isUp(state))))
    return hand(state, "reconnect", state.held, now, effects);
  if (state.rung <= 1 && !isUp(state) && !state.hanging)
    return isNew(state) ? (state.climb = false) : replace(state, now, effects);
  state.rung = Math.max(state.rung, 2);
  if (state.rung === 2 && state.can.recreate) {
    const token = [state.newest, state.held].find((one) => one && ![state.refused, state.unfit].includes(one.text));
    if (token && !unfit(token, state.baseline, now)) hand(state, "recreate", token, now, effects);
    return;
  }
  const means = state.can.recreate
    ? "not even a new client connected"
    : "the client did not connect again, and there is no `recreate`";
  giveUp(state, `${means}; look at the network, the client's options and the server's errors`, 0, now, effects);
}

function hand(state, kind, token, now, effects) {
  const serial = state.serial + 1;
  const from = state.connection;
  Object.assign(state, { serial, climb: false, givenUp: null, error: null, held: token });
  if (kind !== "refresh") state.hanging = kind === "update" ? serial : null;
  state.attempt = { kind, from, serial, at: now, deadline: now + state.limits.deadline, answered: false };
  effects.push({ do: kind, token, serial });
}

function fail(state, now) {
  relax(state, now);
  Object.assign(state, { attempt: null, climb: true, rung: state.rung + 1, troubled: true });
}

function giveUp(state, diagnosis, wait, now, effects) {
  const until = now + (wait || state.limits.probe);
  Object.assign(state, { attempt: null, climb: false, givenUp: { until } });
  tell(effects, "gaveUp", { diagnosis, retryAfter: Math.round((until - now) / 1000) });
}

/** Some time after giving up: from the start. */
function revive(state, now) {
  Object.assign(state, { givenUp: null, rung: 0, denials: 0 });
  if (state.hanging) Object.assign(state, { rung: 2, climb: true });
  else if (!isUp(state) && !TRYING.has(state.connection)) state.loss = { at: now };
}

function slow(state, wait, now, effects) {
  relax(state, now);
  const delay = Math.max(wait, doubled(state.limits.throttled, state.throttles, state));
  state.throttles += 1;
  state.notBefore = Math.max(state.notBefore, now + delay);
  tell(effects, "problem", {
    message: `the server limits connections; the token is kept, nothing is tried for ${Math.round(delay / 1000)} s`,
  });
}

/** After some time without trouble, what went wrong before counts no more. */
function relax(state, now) {
  if (now - (state.arrivedAt ?? now) > state.limits.calm) Object.assign(state, { rung: 0, denials: 0, throttles: 0 });
  state.arrivedAt = null;
}

const doubled = (first, times, { limits }) => Math.min(first * 2 ** times, limits.backoffMax);

function weigh(state, now, effects) {
  const reason = unfit(state.newest, state.baseline, now);
  if (!reason) return;
  state.unfit = state.newest.text;
  const message = `generation ${state.newest.generation} is not handed over: ${reason}; the session keeps its token until one comes that fits`;
  tell(effects, "problem", { message });
}

/** Say why a session of *baseline* must not be given *token*; null if it may. */
export function unfit({ claims, validUntil }, baseline, now) {
  if (!claims || typeof claims.grants !== "object" || !claims.grants) return "it is no Access Token with grants";
  if (validUntil != null && now >= validUntil) return "it has expired";
  if (!baseline) return null;
  if (claims.sub !== baseline.sub) return "it is of another account";
  if (claims.grants.identity !== baseline.grants?.identity) return "it is of another identity";
  for (const [product, grant] of Object.entries(baseline.grants ?? {})) {
    if (product === "identity") continue;
    if (!claims.grants[product]) return `it lacks the grant for ${product}`;
    if (claims.grants[product].service_sid !== grant?.service_sid) return `it is for another service of ${product}`;
  }
  return null;
}
