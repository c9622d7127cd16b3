// The last hour as a picture: a lane for each token, bands where one was valid, a mark for each event.

import { arrange, draw, make, say } from './elements.js';
import { KINDS, clockTime, eventSentence, trouble, visible } from './words.js';

const PAST_S = 3600;
const AHEAD_S = 900;
const LANES = 12;
const LABEL = 150;
const NARROW = 620;
const AXIS = 26;
const APART = 11; // Marks of one kind within so many px become one; those of others step aside.
const ASIDE = 26; // But no further than this: a place in the picture is a time.

// Shapes differ, not colours alone. Drawn around 0, 0 within 6, the later ones above the earlier.
const SHAPES = {
  tokenAboutToExpire: ['path', { d: 'M0-6V6' }],
  tokenUpdated: ['circle', { r: 3.8 }],
  tokenExpired: ['path', { d: 'M-4.2-4.2h8.4v8.4h-8.4z' }],
  tokenDenied: ['path', { d: 'M-4.5-4.5 4.5 4.5M-4.5 4.5 4.5-4.5' }],
  recovered: ['path', { d: 'M-5 .4-1.6 4 5-4' }],
  refreshFailed: ['path', { d: 'M0-5 5.4 4.4H-5.4z' }],
  refreshRefused: ['path', { d: 'M0-5.6 5.6 0 0 5.6-5.6 0zM-2.6 0h5.2' }],
  recoveryFailed: ['path', { d: 'M-5.2-5.2H5.2V5.2H-5.2zM-2.4-2.4 2.4 2.4M-2.4 2.4 2.4-2.4' }],
  clockJumped: ['path', { d: 'M-4.6-4.6 0 0-4.6 4.6M.6-4.6 5.2 0 .6 4.6' }],
};
const ORDER = Object.keys(SHAPES);

function drawnAs(kind) {
  return { class: 'event', 'data-kind': kind };
}

function sampleOf(kind) {
  const sample = draw('svg', { class: 'sample', viewBox: '-7 -7 14 14', 'aria-hidden': 'true' });
  sample.append(draw('g', drawnAs(kind), shape(kind)));
  return sample;
}

function sampleBand() {
  const sample = draw('svg', { class: 'sample', viewBox: '-9 -6 18 12', 'aria-hidden': 'true' });
  sample.append(draw('rect', { class: 'band', x: -9, y: -4, width: 18, height: 8, rx: 2 }));
  return sample;
}

function shape(kind) {
  const [tag, attributes] = SHAPES[kind] ?? SHAPES.tokenAboutToExpire;
  return draw(tag, attributes);
}

// When each generation was valid, and from when on somebody was denied it.
export function spans(events, row, startedAt) {
  const found = new Map();
  for (const event of events) {
    if (!event.generation) continue;
    const span = found.get(event.generation) ?? { from: null, to: null, denied: null };
    found.set(event.generation, span);
    if (event.kind === 'tokenUpdated') span.from = event.at;
    if (event.kind === 'tokenDenied') span.denied ??= event.at;
    if (event.expires_at !== null) span.to = event.expires_at;
  }
  const current = found.get(row.generation) ?? { from: null, to: null, denied: null };
  if (row.generation) found.set(row.generation, { ...current, to: row.expires_at ?? Infinity });
  const ordered = [...found].sort(([a], [b]) => a - b).map(([generation, span]) => ({ generation, ...span }));
  return ordered.map((span, i) => ({
    ...span,
    from: span.from ?? startedAt ?? 0,
    to: Math.min(span.to ?? Infinity, ordered[i + 1]?.from ?? Infinity),
  }));
}

// Joins marks of one kind that would cover each other, and moves apart those of different kinds.
function merged(events, x) {
  const last = new Map();
  const marks = [];
  for (const event of events) {
    const at = x(event.at);
    const before = last.get(event.kind);
    if (before && at - before.from < APART) {
      before.until = at;
      before.count += 1;
      before.event = event;
    } else {
      const one = { kind: event.kind, from: at, until: at, count: 1, first: event, event, at };
      last.set(event.kind, one);
      marks.push(one);
    }
  }
  let free = -Infinity;
  for (const one of marks) {
    one.at = (one.from + one.until) / 2;
    // A due refresh is a stroke behind the token that it brought.
    if (one.kind === 'tokenAboutToExpire') continue;
    if (free - one.at < ASIDE) one.at = Math.max(one.at, free);
    free = one.at + APART;
  }
  return marks.sort((a, b) => ORDER.indexOf(a.kind) - ORDER.indexOf(b.kind));
}

function tipOf(one, now) {
  const until = clockTime(one.event.at, now);
  if (one.count === 1) return `${until}  ${eventSentence(one.event)}`;
  const what = KINDS[one.kind] ?? visible(one.kind);
  return `${clockTime(one.first.at, now)} to ${until}  ${what}, ${one.count} times; last: ${eventSentence(one.event)}`;
}

export class Picture {
  #place;
  #legend;
  #caption;

  constructor({ place, legend, caption, tip }) {
    this.#place = place;
    this.#legend = legend;
    this.#caption = caption;
    listenForTips(place, tip);
  }

  // *rows* are the first of *found*; `eventsOf(name)` are one token's events, oldest first.
  update({ rows, found, eventsOf, startedAt, now }) {
    const width = Math.floor(this.#place.clientWidth);
    if (!width) return;
    const plan = planned(width, now);
    const lanes = rows.slice(0, LANES).map((row, i) => {
      const events = eventsOf(row.name).filter((event) => event.at >= plan.from);
      return { row, events, y: AXIS + i * plan.lane, spans: spans(events, row, startedAt) };
    });
    const kinds = new Set(lanes.flatMap((lane) => lane.events.map((event) => event.kind)));
    this.#place.replaceChildren(drawn(lanes, plan, now));
    this.#tellLegend(ORDER.filter((kind) => kinds.has(kind)));
    const cut = found > LANES ? `${LANES} of ${found.toLocaleString('en')} tokens, trouble first` : '';
    say(this.#caption, cut);
  }

  #tellLegend(kinds) {
    if (this.#legend.dataset.kinds === kinds.join()) return;
    this.#legend.dataset.kinds = kinds.join();
    const items = kinds.map((kind) => make('li', '', sampleOf(kind), KINDS[kind]));
    arrange(this.#legend, [make('li', '', sampleBand(), 'Valid'), ...items]);
  }
}

function planned(width, now) {
  const isNarrow = width < NARROW;
  const left = isNarrow ? 0 : LABEL;
  const from = now - PAST_S;
  const scale = (width - left - 8) / (PAST_S + AHEAD_S);
  const x = (at) => left + (Math.min(Math.max(at, from), now + AHEAD_S) - from) * scale;
  return { width, isNarrow, left, from, x, lane: isNarrow ? 46 : 32 };
}

function drawn(lanes, plan, now) {
  const height = AXIS + lanes.length * plan.lane + 4;
  const told = lanes.map((lane) => `${visible(lane.row.name)}: ${lane.events.length} events`).join('; ');
  const svg = draw('svg', { width: plan.width, height, viewBox: `0 0 ${plan.width} ${height}`, role: 'img' });
  svg.setAttribute('aria-label', `What happened in the last hour. ${told}. The list below has each of them.`);
  svg.append(axis(plan, height, now), ...lanes.map((lane) => laneDrawn(lane, plan, now)));
  const here = plan.x(now);
  svg.append(draw('path', { class: 'now', d: `M${here} ${AXIS - 8}V${height}` }));
  return svg;
}

function axis(plan, height, now) {
  const group = draw('g', { class: 'axis' });
  const step = plan.isNarrow ? 1200 : 600;
  const zone = new Date(now * 1000).getTimezoneOffset() * 60;
  const first = Math.ceil((plan.from - zone) / step) * step + zone;
  const here = plan.x(now);
  for (let at = first; at < now + AHEAD_S; at += step) {
    const x = plan.x(at);
    group.append(draw('path', { d: `M${x} ${AXIS - 4}V${height}` }));
    const hasRoom = Math.abs(x - here) > 46 && x > plan.left + 14 && x < plan.width - 16;
    if (hasRoom) group.append(draw('text', { x, y: 13 }, clockTime(at, now).slice(0, 5)));
  }
  group.append(draw('text', { x: here, y: 13, class: 'here' }, 'now'));
  return group;
}

function laneDrawn(lane, plan, now) {
  const level = ['well', 'trouble', 'down'][trouble(lane.row, now).level];
  const group = draw('g', { class: 'lane', 'data-level': level });
  const middle = lane.y + (plan.isNarrow ? 32 : plan.lane / 2);
  const label = draw('text', { class: 'label', x: 0, y: plan.isNarrow ? lane.y + 15 : middle + 4 });
  const name = visible(lane.row.name);
  const longest = plan.isNarrow ? 44 : 18;
  label.append(name.length > longest ? `${name.slice(0, longest - 1)}…` : name);
  group.append(label, draw('path', { class: 'rail', d: `M${plan.left} ${middle}H${plan.width}` }));
  for (const span of lane.spans) group.append(...bands(span, plan, middle, now));
  for (const one of merged(lane.events, plan.x)) {
    const place = { transform: `translate(${one.at.toFixed(1)} ${middle})`, 'data-tip': `${name}  ${tipOf(one, now)}` };
    group.append(draw('g', { ...drawnAs(one.kind), ...place }, draw('circle', { r: 10, class: 'hit' }), shape(one.kind)));
  }
  return group;
}

function bands(span, plan, middle, now) {
  const parts = [
    [span.from, Math.min(span.to, span.denied ?? span.to, now), 'band'],
    [span.denied ?? span.to, Math.min(span.to, now), 'band denied'],
    [Math.max(span.from, now), span.to, span.denied ? 'band denied ahead' : 'band ahead'],
  ];
  return parts
    .map(([from, to, name]) => [plan.x(from), plan.x(to), name])
    .filter(([from, to]) => to - from > 0.5)
    .map(([from, to, name]) => {
      // A pixel stays free, so that one generation ends before the next begins.
      const width = Math.max(0.5, to - from - 1).toFixed(1);
      return draw('rect', { class: name, x: from.toFixed(1), y: middle - 7, width, height: 14, rx: 3 });
    });
}

function listenForTips(place, tip) {
  place.addEventListener('pointermove', (moved) => {
    const told = moved.target.closest?.('[data-tip]');
    tip.hidden = !told;
    if (!told) return;
    say(tip, told.dataset.tip);
    const right = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.setProperty('left', `${Math.max(8, Math.min(moved.clientX + 12, right))}px`);
    tip.style.setProperty('top', `${moved.clientY + 18}px`);
  });
  place.addEventListener('pointerleave', () => {
    tip.hidden = true;
  });
}

const LISTED = 100;

// The same events as text, newest first: for screen readers, and for whoever wants the words.
export function listEvents(list, events, now) {
  const latest = events.slice(-LISTED).reverse();
  const items = latest.map((event) => {
    const time = make('time', 'code', clockTime(event.at, now));
    const words = make('span', '', make('strong', '', visible(event.name)), ` ${eventSentence(event)}`);
    return make('li', '', time, sampleOf(event.kind), words);
  });
  list.replaceChildren(...items);
}
