// One row of the list for each token: built once, then only what changed is touched.

import { arrange, make, mark, say, show } from './elements.js';
import { budget, clockTime, count, duration, moment, phaseWord } from './words.js';
import { reporters, statusAt, statusWord, trouble, usableFor, visible } from './words.js';

const LEVELS = ['well', 'trouble', 'down'];
const FACTS = ['Next refresh', 'Next attempt', 'Generation', 'Failures in a row'];

export class Row {
  #parts = {};
  #facts = {};
  #seen = { generation: -1, at: 0 };

  constructor(name) {
    const parts = this.#parts;
    const title = make('h3', 'name', make('bdi', '', visible(name)));
    parts.profile = make('span', 'tag');
    parts.status = make('span', 'status');
    parts.phase = make('span', 'phase');
    parts.budget = make('p', 'budget');
    parts.left = make('span', 'left');
    parts.due = make('span', 'due');
    parts.meter = make('div', 'life', parts.left, parts.due);
    parts.ends = make('p', 'quiet ends');
    parts.error = make('p', 'error');
    parts.denied = make('p', 'denied');
    parts.sinks = make('ul', 'sinks');
    parts.meter.setAttribute('role', 'meter');
    parts.meter.setAttribute('aria-label', 'Remaining life');
    parts.meter.setAttribute('aria-valuemin', '0');
    parts.meter.setAttribute('aria-valuemax', '100');
    const state = make('p', 'state', parts.status, ' ', parts.phase);
    const who = make('div', 'who', make('div', 'title', title, parts.profile), state);
    const life = make('div', 'span', parts.budget, parts.meter, parts.ends);
    const notes = make('div', 'notes', parts.error, parts.denied, parts.sinks);
    this.element = make('li', 'row', who, life, notes, this.#list());
    this.element.dataset.name = name;
    this.element.tabIndex = -1;
  }

  #list() {
    const list = make('dl', 'facts');
    for (const fact of FACTS) {
      this.#facts[fact] = make('dd');
      list.append(make('div', '', make('dt', '', fact), this.#facts[fact]));
    }
    this.#parts.number = make('span');
    this.#parts.print = make('span', 'code print');
    this.#facts.Generation.append(this.#parts.number, ' ', this.#parts.print);
    return list;
  }

  // `began` is when this generation was published, if an event told; else its `issued_at` has to do.
  update(row, now, began) {
    const parts = this.#parts;
    const wrong = trouble(row, now);
    mark(this.element, 'level', LEVELS[wrong.level]);
    mark(this.element, 'status', statusAt(row, now));
    say(parts.profile, visible(row.source ? `${row.profile}, from ${row.source}` : row.profile));
    say(parts.status, statusWord(row, now));
    say(parts.phase, phaseWord(row));
    say(parts.budget, budget(row, now));
    this.#life(row, now, began);
    this.#tell(row, now);
    this.#notes(row);
  }

  #life(row, now, began) {
    const { meter, left, due, ends } = this.#parts;
    const usable = usableFor(row, now);
    const start = this.#start(row, now, began);
    const whole = row.expires_at === null ? Infinity : Math.max(1, row.expires_at - start);
    const share = usable === Infinity ? 1 : Math.min(1, usable / whole);
    mark(meter, 'end', usable === Infinity ? 'open' : 'known');
    left.style.setProperty('--share', share.toFixed(4));
    meter.setAttribute('aria-valuenow', String(Math.round(share * 100)));
    meter.setAttribute('aria-valuetext', usable === Infinity ? 'no known end' : duration(usable));
    const hasDue = row.refresh_at !== null && Number.isFinite(whole);
    const at = hasDue ? (row.expires_at - row.refresh_at) / whole : -1;
    show(due, at > 0 && at < share);
    due.style.setProperty('--at', at.toFixed(4));
    due.title = 'The refresh is due here';
    const verb = now < row.expires_at ? 'Expires' : 'Expired';
    say(ends, row.expires_at === null ? '\u00a0' : `${verb} at ${clockTime(row.expires_at, now)}`);
  }

  #start(row, now, began) {
    if (this.#seen.generation !== row.generation) this.#seen = { generation: row.generation, at: now };
    const end = row.expires_at ?? Infinity;
    const known = [began, row.issued_at].find((at) => typeof at === 'number' && at < end);
    return known ?? this.#seen.at;
  }

  #tell(row, now) {
    const facts = this.#facts;
    const isDue = row.refresh_at !== null && row.refresh_at <= now;
    say(facts['Next refresh'], isDue ? 'due' : moment(row.refresh_at, now));
    // While all is well it is the next refresh once more.
    const isTrying = row.failures > 0 || row.phase === 'refused';
    const attempt = isTrying ? moment(row.next_attempt_at, now) : '–';
    say(facts['Next attempt'], row.phase === 'fetching' ? 'running' : attempt);
    say(facts['Failures in a row'], row.failures.toLocaleString('en'));
    say(this.#parts.number, row.generation ? row.generation.toLocaleString('en') : '–');
    say(this.#parts.print, visible(row.fingerprint ?? ''));
    mark(facts['Failures in a row'], 'is', row.failures ? 'bad' : 'good');
  }

  #notes(row) {
    const { error, denied, sinks } = this.#parts;
    say(error, row.last_error ? `Last error: ${visible(row.last_error)}` : '');
    show(error, Boolean(row.last_error));
    const who = reporters(row);
    say(denied, who ? `Denied to ${who}` : '');
    show(denied, Boolean(who));
    const written = row.sinks ?? [];
    show(sinks, written.length > 0);
    while (sinks.children.length > written.length) sinks.lastElementChild.remove();
    written.forEach((sink, i) => sinkLine(sinks.children[i] ?? sinks.appendChild(newSink()), sink, row));
  }
}

function newSink() {
  return make('li', 'sink', make('bdi', 'code path'), make('span', 'has'));
}

function sinkLine(line, sink, row) {
  const [path, has] = line.children;
  say(path, visible(sink.path));
  const isBehind = !sink.error && sink.generation < row.generation;
  mark(line, 'is', sink.error ? 'bad' : isBehind ? 'late' : 'good');
  const holds = sink.generation ? `holds generation ${sink.generation}` : 'not written yet';
  say(has, sink.error ? `${holds}; ${visible(sink.error)}` : holds);
}

const TROUBLED_SHOWN = 200;
const OTHERS_SHOWN = 100;

// Chooses the rows to show: trouble first, by name within; of the sound ones the first hundred.
export function choose(rows, now, wanted) {
  const needle = wanted.trim().toLowerCase();
  const found = needle ? rows.filter((row) => row.name.toLowerCase().includes(needle)) : rows;
  const ranked = found.map((row) => ({ row, level: trouble(row, now).level }));
  ranked.sort((a, b) => b.level - a.level || (a.row.name < b.row.name ? -1 : 1));
  const troubled = ranked.filter((one) => one.level);
  const sound = ranked.slice(troubled.length);
  const shown = [...troubled.slice(0, TROUBLED_SHOWN), ...sound.slice(0, OTHERS_SHOWN)];
  return { shown: shown.map((one) => one.row), found: found.length, troubled: troubled.length };
}

export function sayHowMany(element, { shown, found, troubled }, total) {
  const all = found === total ? count(total, 'token') : `${found.toLocaleString('en')} of ${count(total, 'token')}`;
  const bad = troubled ? `, ${troubled.toLocaleString('en')} in trouble` : '';
  const cut = shown.length < found ? `; the first ${shown.length} are shown, trouble first` : '';
  say(element, all + bad + cut);
}

// The rows of the list, by name.
export class Rows {
  #list;
  #byName = new Map();

  constructor(list) {
    this.#list = list;
  }

  update(shown, now, began) {
    const names = new Set(shown.map((row) => row.name));
    for (const name of this.#byName.keys()) if (!names.has(name)) this.#byName.delete(name);
    const elements = shown.map((row) => {
      const one = this.#byName.get(row.name) ?? new Row(row.name);
      this.#byName.set(row.name, one);
      one.update(row, now, began(row));
      return one.element;
    });
    arrange(this.#list, elements);
  }

  // Brings the row of *name* into view, for eyes and for screen readers.
  goTo(name) {
    const element = this.#byName.get(name)?.element;
    element?.focus({ preventScroll: true });
    element?.scrollIntoView({ block: 'center' });
  }
}
