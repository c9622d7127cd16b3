// The event stream: server-sent events over `fetch`, because an EventSource cannot send a key.
// Knows nothing of tokens and nothing of the page.

const SILENCE_S = 40; // The server comments every 15 s: two may be lost.
const BACKOFF_MIN_S = 0.5;
const BACKOFF_MAX_S = 15;

// Cuts a stream of text into events, wherever the pieces begin and end.
export class EventParser {
  #onEvent;
  #pieces = [];
  #afterReturn = false;
  #kind = '';
  #lines = [];
  #id = '';

  constructor(onEvent) {
    this.#onEvent = onEvent;
  }

  push(text) {
    // A line feed right after a piece that ended with a carriage return belongs to it.
    const fresh = this.#afterReturn && text.startsWith('\n') ? text.slice(1) : text;
    if (text) this.#afterReturn = text.endsWith('\r');
    const lines = fresh.split(/\r\n|\n|\r/);
    this.#pieces.push(lines[0]);
    for (let i = 1; i < lines.length; i += 1) {
      this.#line(this.#pieces.join(''));
      this.#pieces = [lines[i]];
    }
  }

  #line(line) {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const rest = colon < 0 ? '' : line.slice(colon + 1);
    const value = rest.startsWith(' ') ? rest.slice(1) : rest;
    if (field === 'event') this.#kind = value;
    if (field === 'data') this.#lines.push(value);
    if (field === 'id' && !value.includes('\0')) this.#id = value;
    return undefined;
  }

  #dispatch() {
    const event = { kind: this.#kind || 'message', id: this.#id, data: this.#lines.join('\n') };
    const isEmpty = this.#lines.length === 0;
    this.#kind = '';
    this.#lines = [];
    if (!isEmpty) this.#onEvent(event);
  }
}

// Keeps a stream open until the server says that it may not be.
export class Stream {
  #ask;
  #onEvent;
  #onState;
  #lastId = '';
  #failures = 0;
  #wake = () => {};
  #current = new AbortController();
  #isOver = false;

  // `ask(path, options)` is a fetch that shows the key. `onState` is told 'live', 'lost' or 'ended'.
  constructor({ ask, onEvent, onState }) {
    this.#ask = ask;
    this.#onEvent = onEvent;
    this.#onState = onState;
  }

  async run() {
    while (!this.#isOver) {
      const isAllowed = await this.#read();
      if (this.#isOver) return;
      if (!isAllowed) {
        this.#onState('ended');
        return;
      }
      this.#onState('lost');
      await this.#rest();
    }
  }

  // Tries again at once, if it rests.
  hurry() {
    this.#wake();
  }

  close() {
    this.#isOver = true;
    this.#current.abort();
    this.#wake();
  }

  async #read() {
    this.#current = new AbortController();
    const { signal } = this.#current;
    const watchdog = this.#watchdog();
    try {
      watchdog.feed();
      const headers = { Accept: 'text/event-stream' };
      if (this.#lastId) headers['Last-Event-ID'] = this.#lastId;
      const answer = await this.#ask('/v1/events?history=3600', { headers, signal });
      if (answer.status === 401 || answer.status === 403) return false;
      if (!answer.ok || !answer.body) return true;
      await this.#drain(answer.body, watchdog);
    } catch {
      // Whatever broke it, the remedy is another try.
    } finally {
      watchdog.stop();
      this.#current.abort();
    }
    return true;
  }

  async #drain(body, watchdog) {
    const parser = new EventParser((event) => this.#heard(event));
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    this.#onState('live');
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      watchdog.feed();
      parser.push(value);
    }
  }

  #heard(event) {
    this.#failures = 0;
    this.#lastId = event.id;
    this.#onEvent(event);
  }

  #watchdog() {
    let timer;
    const controller = this.#current;
    const stop = () => clearTimeout(timer);
    const feed = () => {
      stop();
      timer = setTimeout(() => controller.abort(), SILENCE_S * 1000);
    };
    return { feed, stop };
  }

  async #rest() {
    const longest = Math.min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** Math.min(this.#failures, 10));
    this.#failures += 1;
    // Between half and all of it, so that many pages do not come back together.
    const wait = longest * (0.5 + Math.random() / 2);
    await new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, wait * 1000);
    });
  }
}
