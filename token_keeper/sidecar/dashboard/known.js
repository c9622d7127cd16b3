// What the page knows: the rows, the last hour's events, and what time it is at the server.

const PAST_S = 3600;
const KEPT_OF_EACH = 200;
const KEPT = 1000;

// The server's clock. `performance.now` runs on evenly when somebody sets the browser's clock.
class Clock {
  #offset = Date.now() / 1000 - performance.now() / 1000;

  now() {
    return this.#offset + performance.now() / 1000;
  }

  // Set by a document that was written between *asked* and now.
  learn(document, date, asked) {
    const row = document.tokens.find((one) => one.usable_for > 0 && one.expires_at !== null);
    const received = performance.now() / 1000;
    if (row) {
      // Exact to the time that the answer was under way.
      this.#offset = row.expires_at - row.usable_for - received;
    } else if (date) {
      // Whole seconds: half of one is the least wrong on average.
      this.#offset = Date.parse(date) / 1000 + 0.5 - (asked + received) / 2;
    }
  }
}

export class Known {
  clock = new Clock();
  start = '';
  startedAt = null;
  version = '';
  ready = null;
  live = null;
  rows = [];
  hasCome = false;
  #byName = new Map();
  #events = [];
  #eventsByName = new Map();
  #ids = new Set();

  now() {
    return this.clock.now();
  }

  events() {
    return this.#events;
  }

  eventsOf(name) {
    return this.#eventsByName.get(name) ?? [];
  }

  // Takes the document of `GET /v1/tokens`. Returns whether it is another start's.
  take(document, { date = null, asked = performance.now() / 1000 } = {}) {
    const hasRestarted = this.start !== '' && document.start !== this.start;
    if (hasRestarted) this.#forget();
    this.start = document.start ?? '';
    this.startedAt = document.started_at ?? null;
    this.version = document.version ?? '';
    this.ready = document.ready ?? null;
    this.live = document.live ?? null;
    this.rows = document.tokens.map(completed);
    this.#byName = new Map(this.rows.map((row) => [row.name, row]));
    this.clock.learn(document, date, asked);
    this.hasCome = true;
    return hasRestarted;
  }

  // Takes an event; returns false if it is known already.
  hear(event, id) {
    if (id && this.#ids.has(id)) return false;
    this.#ids.add(id);
    this.#events.push(event);
    const own = this.#eventsByName.get(event.name) ?? [];
    this.#eventsByName.set(event.name, own);
    own.push(event);
    if (own.length > KEPT_OF_EACH) own.shift();
    if (this.#events.length > 2 * KEPT) this.#drop();
    const row = this.#byName.get(event.name);
    if (row && event.at > this.now() - 5) follow(row, event);
    return true;
  }

  // When the current token of *row* was published, if an event of the last hour told.
  began(row) {
    const isIt = (one) => one.kind === 'tokenUpdated' && one.generation === row.generation;
    return this.eventsOf(row.name).findLast(isIt)?.at;
  }

  // Drops what is over an hour old.
  age() {
    const from = this.now() - PAST_S;
    if (this.#events[0]?.at < from) this.#events = this.#events.filter((one) => one.at >= from);
    for (const [name, own] of this.#eventsByName) {
      const kept = own.findIndex((one) => one.at >= from);
      if (kept < 0) this.#eventsByName.delete(name);
      else own.splice(0, kept);
    }
  }

  #drop() {
    this.#events = this.#events.slice(-KEPT);
    this.#ids = new Set([...this.#ids].slice(-KEPT));
  }

  #forget() {
    this.#events = [];
    this.#eventsByName.clear();
    this.#ids.clear();
  }
}

// A row with every member that the page reads, whatever the server left out.
function completed(row) {
  return {
    profile: '',
    status: 'absent',
    phase: 'waiting',
    generation: 0,
    fingerprint: null,
    failures: 0,
    last_error: null,
    expires_at: null,
    issued_at: null,
    refresh_at: null,
    next_attempt_at: null,
    attempts_left: null,
    source: null,
    ...row,
    denied_by: row.denied_by ?? [],
    sinks: row.sinks ?? [],
  };
}

// What an event says of a row at once; the next document says the rest.
function follow(row, event) {
  if (event.generation < row.generation) return;
  row.failures = event.failures ?? row.failures;
  if (event.kind === 'tokenUpdated') {
    const { generation, fingerprint, expires_at } = event;
    Object.assign(row, { generation, fingerprint, expires_at, issued_at: null, refresh_at: null });
    Object.assign(row, { status: 'fresh', phase: 'waiting', last_error: null, denied_by: [] });
  } else if (event.kind === 'tokenAboutToExpire' && row.status === 'fresh') row.status = 'stale';
  else if (event.kind === 'tokenExpired') row.status = 'expired';
  else if (event.kind === 'refreshFailed') Object.assign(row, { phase: 'backing_off', last_error: event.error });
  else if (event.kind === 'refreshRefused') Object.assign(row, { phase: 'refused', last_error: event.error });
}
